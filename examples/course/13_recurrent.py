# %% [markdown]
# # Recurrent networks
#
# A network that reads a sequence and keeps what it needs in a state: from it follows what comes next, with which
# probability (long short-term memory: Hochreiter and Schmidhuber, Neural Comput. 9, 1735 (1997)). One and the same
# network writes molecules, token after token, and a molecule's motion, state after state.

# %%
import os
from pathlib import Path

import mdtraj
import numpy as np
import torch
from matplotlib.figure import Figure
from sklearn.linear_model import Ridge

import molml
from molml.kinetics import MarkovStateModel, Torsions, TrajectoryFiles, implied_timescales
from molml.kinetics.plots import plot_timescales
from molml.kinetics.systems import swiss_roll_model
from molml.molecules import LanguageModel, MoleculeList, canonical, read_molecules, train_language
from molml.molecules.decoder import Decoder
from molml.molecules.loss import token_losses
from molml.training import ArrayDataset, Term, Trainer, cosine

FAST = bool(os.environ.get("MOLML_FAST"))  # seconds instead of minutes, for the tests; the results are worth less
RESULTS = Path("results/course/13_recurrent")
RESULTS.mkdir(parents=True, exist_ok=True)

# %% [markdown]
# ## A language of molecules
# Ten thousand drug-like molecules as SMILES. The network was never told what a bracket or a ring is; a mask that
# forbids tokens after which the string could become no molecule tells how much of the grammar it has not learned.

# %%
folder = molml.datasets.path("molecules")
known, unseen = (read_molecules(folder / f"{name}.csv.xz").smiles for name in ("train", "valid"))
if FAST:
    known, unseen = known[:400], unseen[:50]
language = train_language(
    known, minutes=60, max_epochs=2 if FAST else 14, hidden=32 if FAST else 128, learning_rate=4e-3, progress=False
)
n_drawn = 50 if FAST else 1000
written = {mask: language.sample(n_drawn, seed=0, mask=mask) for mask in (False, True)}
valid = {mask: [mol for mol in found if mol is not None] for mask, found in written.items()}
different = {canonical(mol) for mol in valid[True]}
new = different - set(known)
print(
    f"{len(valid[False]) / n_drawn:.0%} of the strings are molecules, with the mask {len(valid[True]) / n_drawn:.0%};"
)
print(f"of these {len(different)} are different, and {len(new)} of those are not in the training set")
MoleculeList(valid[True][:10], title="Written by the network").save(RESULTS / "samples.svg")

# %% [markdown]
# ## What the state remembers
# To close a bracket or a ring the network has to know that one is open. Is it in the state? A linear function of the
# state says so, on molecules that neither it nor the network has seen; of that of an untrained network it
# says less (but much: random feedback is a memory, too), and of the last token alone little.


# %%
def memories(tokens):
    """How many brackets and rings are open after every token, and how many atoms there have been."""
    depth, rings, atoms, rows = 0, set(), 0, []
    for token in tokens:
        depth += (token == "(") - (token == ")")
        rings ^= {token} if token.isdigit() else set()
        atoms += token[0].isalpha() or (token[0] == "[" and token != "[H]")
        rows.append((depth, len(rings), atoms))
    return rows


def states(model, smiles):
    """State of the network after every token of molecules, and what there is to remember."""
    found, truth, last = [], [], []
    for ids in model.tokenizer.encode(smiles):
        read = torch.tensor(ids[:-1].astype(np.int64))[None]
        with torch.no_grad():
            found.append(model.decoder.lstm(model.decoder.tokens(read))[0][0])
        truth += memories([model.tokenizer.vocabulary[i] for i in ids[:-1]])
        last.append(torch.nn.functional.one_hot(read[0], len(model.tokenizer)))
    return torch.cat(found).numpy(), np.array(truth, dtype=float), torch.cat(last).numpy()


def explained(inputs, truth, split):
    """Part of the variance that a linear function explains, of the molecules after the split."""
    left = truth[split:] - Ridge(1e-2).fit(inputs[:split], truth[:split]).predict(inputs[split:])
    return 1 - (left**2).mean(0) / truth[split:].var(0)


unseen = [text for text in unseen if not language.tokenizer.unknown(text)]
untrained = LanguageModel(language.tokenizer, hidden=language.hidden, seed=0).eval()
state, truth, last = states(language, unseen)
split = int(0.7 * len(truth))
probes = {
    "trained network": explained(state, truth, split),
    "untrained network": explained(states(untrained, unseen)[0], truth, split),
    "last token": explained(last, truth, split),
}
for name, values in probes.items():
    print(
        f"{name:18} explains {values[0]:.2f} of open brackets, {values[1]:.2f} of open rings, {values[2]:.2f} of atoms"
    )

# %% [markdown]
# ## A trajectory is a text, too
# The same network on sequences of states. The first is a Markov chain of four states, whose probabilities are known,
# so that there is nothing to remember but the present state. In the second the four are seen as two, left and right:
# this is no Markov chain any more, and how probable a jump is depends on the past. The exact answer is a sum over what
# is hidden (the forward algorithm: Rabiner, Proc. IEEE 77, 257 (1989), eq. 20).

# %%
LENGTH = 100  # frames that the network sees at once


def recurrent(sequences, n_states, *, epochs, hidden=32):
    """Network trained on pieces of trajectories; tokens 0, 1 and 2 are padding, start and end."""
    pieces = np.concatenate([s[: len(s) // LENGTH * LENGTH].reshape(-1, LENGTH) for s in sequences]) + 3
    tokens = torch.tensor(np.pad(pieces, ((0, 0), (1, 0)), constant_values=1))
    model = Decoder(n_states + 3, 0, hidden=hidden, embedding=8, seed=0)
    Trainer(
        model,
        lambda model, batch: {"nats": Term(token_losses(model(batch[0][:, :-1]), batch[0]).sum(), batch[0].numel())},
        torch.optim.Adam(model.parameters(), lr=1e-2),
        batch_size=16,
        max_epochs=epochs,
        lr_schedule=cosine(),
        clip_norm=5.0,
        progress=False,
    ).fit(ArrayDataset(tokens, tokens))
    return model


def predicted(model, states):
    """Probabilities of the next state, at every frame, of sequences (n, n_frames)."""
    tokens = torch.tensor(np.pad(states[:, :-1] + 3, ((0, 0), (1, 0)), constant_values=1))
    with torch.no_grad():
        return torch.softmax(model(tokens)[..., 3:].double(), dim=2).numpy()


def dreamed(model, n, length):
    """Trajectories that the network writes, (n, length)."""
    generator = torch.Generator().manual_seed(0)
    ids, state, frames = torch.ones(n, dtype=torch.long), model.start(None, n), []
    with torch.no_grad():
        for _ in range(length):
            logits, state = model.step(ids, state)
            ids = 3 + torch.multinomial(torch.softmax(logits[:, 3:], 1), 1, generator=generator)[:, 0]
            frames.append(ids - 3)
    return torch.stack(frames, dim=1).numpy()


def filtered(matrix, stationary, seen, states):
    """Exact probabilities of what is seen next, at every frame, if only the states `seen[i]` of a chain can be told."""
    shows = np.eye(max(seen) + 1)[seen]
    belief, rows = np.broadcast_to(stationary, (len(states), len(seen))), []
    for now in states.T:
        rows.append(belief @ shows)
        belief = belief * shows[:, now].T
        belief = belief / belief.sum(1, keepdims=True) @ matrix
    return np.stack(rows, axis=1)


def nats(probabilities, states):
    """Mean -log p of what came next."""
    return -np.log(np.take_along_axis(probabilities, states[..., None], 2)).mean()


system = swiss_roll_model()
matrix, stationary = system.transition_matrix, system.stationary_distribution
chains = system.simulate(5_000 if FAST else 50_000, n_trajectories=4, seed=0).states
later = np.stack(system.simulate(LENGTH, n_trajectories=200, seed=1).states)
four = recurrent(chains, 4, epochs=2 if FAST else 12)
p_four = predicted(four, later)
learned = np.stack([p_four[:, 1:][later[:, :-1] == state].mean(0) for state in range(4)])
spread = max(p_four[:, 1:][later[:, :-1] == state].std(0).max() for state in range(4))
counted = MarkovStateModel(1, reversible=False).fit(chains).transition_matrix

sides = np.array([0, 0, 1, 1])
pairs, later_pair = [sides[s] for s in chains], sides[later]
two = recurrent(pairs, 2, epochs=2 if FAST else 12)
short = MarkovStateModel(1).fit(pairs)
first = np.tile(short.stationary_distribution, (len(later), 1, 1))
answers = {
    "Markov model": np.concatenate([first, short.transition_matrix[later_pair[:, :-1]]], axis=1),
    "network": predicted(two, later_pair),
    "exact": filtered(matrix, stationary, sides, later_pair),
}
costs = {name: nats(p, later_pair) for name, p in answers.items()}
print("nats per frame, left and right: " + ", ".join(f"{name} {value:.4f}" for name, value in costs.items()))

# %% [markdown]
# The network dreams: long trajectories, from which implied timescales are estimated as from the data. A Markov model
# of the two states at lag 1 can only give one timescale at all lags, and that is too short.

# %%
lags = [1, 2, 5, 10, 20, 40]
length = 200 if FAST else 1000


def timescales(sequences):
    return np.array([MarkovStateModel(lag).fit(list(sequences)).timescales(1)[0] for lag in lags])


def exact_timescale(lag):
    """Of the chain of two states at this lag, from the chain of four."""
    jumps = np.eye(2)[sides].T @ (stationary[:, None] * np.linalg.matrix_power(matrix, lag)) @ np.eye(2)[sides]
    return -lag / np.log(np.linalg.eigvals(jumps / jumps.sum(1, keepdims=True)).real.min())


dreams = dreamed(two, 200, length)
curves = {"data": timescales(pairs), "network": timescales(dreams)}
curves["exact"] = np.array([exact_timescale(lag) for lag in lags])
for name, values in curves.items():
    print(f"timescales of left and right, {name:8}", values.round(1))

# %% [markdown]
# ## Alanine dipeptide
# Three states, told apart by two torsions: φ > 0, and two parts of φ < 0, whose borders, ψ = 74° and -125°, are crossed
# seldom. The network learns from single frames and should dream of a molecule whose timescales are those of the
# trajectories, at every lag.

# %%
alanine = molml.datasets.path("alanine-dipeptide")
topology = mdtraj.load(alanine / "topology.pdb").topology
files = TrajectoryFiles(alanine / "*.xtc", Torsions(topology), topology=topology, stride=10 if FAST else 1)
frames = [np.arctan2(x[:, 1:4:2], x[:, 0:4:2]) for x in files.load()]
conformations = [np.where(x[:, 0] > 0, 2, np.where(np.cos(x[:, 1] - 2.7) > np.cos(1.4), 0, 1)) for x in frames]
peptide = recurrent(conformations, 3, epochs=2 if FAST else 40)
dreamt = dreamed(peptide, 100, length)
its = implied_timescales(conformations, lags, n_timescales=2, seed=0)
of_dreams = np.array([MarkovStateModel(lag).fit(list(dreamt)).timescales(2) for lag in lags])
parts = {
    name: np.bincount(np.concatenate(list(found)), minlength=3) / sum(map(len, found))
    for name, found in (("trajectories", conformations), ("network", dreamt))
}
for name, values in parts.items():
    print(f"parts of the three states, {name:12}", values.round(3))
print(
    "timescales of the trajectories (frames)", its.timescales[-1].round(1), "from", its.low[-1].round(1), "to", end=" "
)
print(its.high[-1].round(1), "and of the network", of_dreams[-1].round(1))

# %%
figure = Figure(figsize=(15, 7.6), layout="constrained")
axes = figure.subplots(2, 3)
names = ("open brackets", "open rings", "atoms so far")
for place, (name, values) in enumerate(probes.items()):
    axes[0, 0].bar(np.arange(3) + 0.27 * (place - 1), values, 0.25, label=name)
axes[0, 0].set(xticks=range(3), xticklabels=names, ylabel="variance explained", ylim=(0, 1.3))
axes[0, 0].legend(ncols=3, fontsize="small", loc="upper center")
shown = sorted(unseen[-20:], key=len)[10]
texts = [language.tokenizer.vocabulary[i] for i in language.tokenizer.encode([shown])[0][:-1]]
reader = Ridge(1e-2).fit(state[:split], truth[:split])
read, right, _ = states(language, [shown])
for column in range(2):
    axes[0, 1].step(range(len(right)), right[:, column], "k", where="mid", lw=1)
    axes[0, 1].plot(reader.predict(read)[:, column], "o-", ms=3, color=f"C{column}", label=names[column])
axes[0, 1].set(xticks=range(len(texts)), xticklabels=texts, title="read from the state, and the truth (black)")
axes[0, 1].tick_params(axis="x", labelsize=7)
axes[0, 1].set(xlabel="token", ylabel="number", ylim=(-0.6, 1.9))
axes[0, 1].legend(ncols=2, fontsize="small", loc="upper center")
axes[0, 2].plot([0, 1], [0, 1], "k:", lw=1)
axes[0, 2].plot(matrix.ravel(), counted.ravel(), "s", mfc="none", label="counted")
axes[0, 2].plot(matrix.ravel(), learned.ravel(), "o", ms=4, label="network")
axes[0, 2].set(xlabel="exact probability of a jump", ylabel="learned", title="four states")
axes[0, 2].legend()
left = later_pair[:, :-1] == 0
known_jump = answers["exact"][:, 1:, 1][left]
for name, color in (("Markov model", "C1"), ("network", "C0")):
    axes[1, 0].plot(known_jump, answers[name][:, 1:, 1][left], ".", ms=2, color=color, label=name)
axes[1, 0].axline((0, 0), slope=1, color="k", ls=":", lw=1)
axes[1, 0].set(xlabel="exact probability, given the past", ylabel="predicted", title="a jump from left to right")
axes[1, 0].set(xlim=(0.015, 0.055), ylim=(0.015, 0.08))
axes[1, 0].legend(markerscale=5, loc="upper left")
plot_timescales(lags, np.stack([curves["data"], curves["network"]], 1), ax=axes[1, 1], unit="frames")
exact = axes[1, 1].plot(lags, curves["exact"], "k--")[0]
at_one = axes[1, 1].axhline(short.timescales(1)[0], color="k", ls=":")
axes[1, 1].legend([*axes[1, 1].lines[:2], exact, at_one], [*curves, "Markov model at lag 1"], fontsize="small")
axes[1, 1].set(yscale="linear", ylim=(0, 45), title="left and right")
plot_timescales(lags, its.timescales, low=its.low, high=its.high, ax=axes[1, 2], unit="frames")
dreamt_of = axes[1, 2].plot(lags, of_dreams, "k--")
axes[1, 2].legend(
    [*axes[1, 2].lines[:2], dreamt_of[0]], ["trajectories, slowest", "trajectories, next", "network"], fontsize="small"
)
axes[1, 2].set(ylim=(0.9, 500), title="alanine dipeptide")
figure.savefig(RESULTS / "recurrent.png", dpi=120)
figure  # noqa: B018 (a notebook shows it)

# %% [markdown]
# ## Checks against known answers
# No answer is cheaper than the exact one, which the network nearly reaches. The Markov model is the control: whoever
# forgets the past can do no better than it does.

# %%
off = np.abs(learned - matrix).max()
gap = {name: costs[name] - costs["exact"] for name in ("Markov model", "network")}
wrong = np.abs(curves["network"] / curves["exact"] - 1).max()
print(f"jumps of the four states are known to {off:.3f}, whatever the past to {spread:.3f}; of the gap of the Markov")
print(f"model to the exact answer the network leaves {gap['network'] / gap['Markov model']:.0%}")
assert gap["network"] > -0.1 * gap["Markov model"], f"nothing but chance can beat the exact answer, {costs}"
assert len(valid[True]) > 0.98 * n_drawn, f"the mask must forbid what is no molecule, {len(valid[True])} are left"
assert FAST or len(valid[False]) > 0.4 * n_drawn, f"half of the grammar must be learned, {len(valid[False])} are right"
assert FAST or len(new) > 0.85 * n_drawn, f"most of the molecules must be new, got {len(new)}"
assert FAST or (probes["trained network"] > probes["untrained network"]).all(), "training must improve the memory"
assert FAST or (probes["trained network"] > 0.75).all(), f"the state must hold what is open, {probes}"
assert FAST or (probes["last token"] < 0.5).all(), f"the last token is the control: it knows little, {probes}"
assert FAST or off < 0.02, f"the network must find the probabilities of a Markov chain, {off:.3f} off"
assert FAST or spread < 0.02, f"a Markov chain has no past to be remembered, {spread:.3f}"
assert FAST or gap["network"] < 0.4 * gap["Markov model"], f"the network must use the past, {gap}"
assert FAST or wrong < 0.2, f"timescales must be right at every lag, {wrong:.0%} off"
low, high = its.low[-1, 0], its.high[-1, 0]
found = of_dreams[-1, 0]
assert FAST or low < found < high, f"slowest timescale {found:.0f} must be in {low:.0f} to {high:.0f}"
quick = of_dreams[lags.index(10), 1] / its.timescales[lags.index(10), 1]
assert FAST or abs(quick - 1) < 0.2, f"the next timescale must be right, got {quick:.2f} times that of the trajectories"
apart = np.abs(np.subtract(*parts.values())).max()
assert FAST or apart < 0.05, f"the states must be as probable as in the trajectories, {parts}"
print("all checks passed; figures are in", RESULTS)
