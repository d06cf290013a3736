"""Policy gradients: a language model learns to write molecules with a better score, and stays near what it was."""

from __future__ import annotations

import copy
import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple, cast, final

import numpy as np
import torch
from rdkit import Chem
from rdkit.Chem.Scaffolds import MurckoScaffold
from torch import Tensor
from tqdm import tqdm

from molml.molecules.data import as_molecules, canonical
from molml.molecules.dataset import MoleculeDataset
from molml.molecules.decoder import Decoder
from molml.molecules.display import MoleculeList
from molml.molecules.exploration import similarities
from molml.molecules.generation import generate, molecules
from molml.molecules.language import LanguageModel
from molml.molecules.loss import token_losses
from molml.molecules.optimisation import direction_of, score_of

__all__ = ["Reinforcement", "Step", "reinforce"]

CLIP_NORM = 5.0
MOST_IDLE = 50  # batches without a molecule that is new
REMEMBERED = 100  # best molecules that can be replayed


class Step(NamedTuple):
    """One step of the training.

    Attributes
    ----------
    calls : int
        Calls of the score so far.
    score : float
        Mean over the molecules that the step's strings are; NaN without any.
    valid : float
        Part of the strings that are molecules.
    unique : float
        Part of these that are different from each other.
    likelihood : float, nats
        Mean logarithm of the strings' probabilities under the model before the training, the prior.
    """

    calls: int
    score: float
    valid: float
    unique: float
    likelihood: float


class Reinforcement(NamedTuple):
    """What came of a training.

    Attributes
    ----------
    model : LanguageModel
        Writes better molecules.
    found : MoleculeList
        The molecules evaluated that are similar enough, all different, the best first.
    history : list of Step
    """

    model: LanguageModel
    found: MoleculeList
    history: list[Step]


def reinforce(
    model: LanguageModel,
    score: str | Callable[[Chem.Mol], float],
    *,
    direction: Literal["max", "min"] | float = "max",
    budget: int = 5000,
    start: object = None,
    similarity: float = 0.0,
    sigma: float = 60.0,
    batch_size: int = 64,
    replay: int = 16,
    diversity: int | None = 25,
    learning_rate: float = 1e-3,
    seed: int = 0,
    progress: bool | None = None,
) -> Reinforcement:
    """Train a language model to write molecules with a better score.

    A molecule's reward R, 0 to 1, is the logistic function of its score in standard deviations from the mean of the
    first batch, and 0 for a string that is none. Maximised is the mean of R less 1 / sigma times the divergence
    KL(model | prior) from the model as it was, by policy gradients with the mean over a batch as the baseline. The
    best model is prior(x) exp(sigma R(x)), normalised; without the prior (sigma infinite) it is a single molecule.

    Parameters
    ----------
    model : LanguageModel
        Left as it is; a copy is trained.
    score : str or callable
        Name of a property (`molml.molecules.properties.PROPERTIES`), or a function of a molecule. A result that is not
        finite earns no reward.
    direction : "max", "min" or float
        Which scores are better: larger, smaller, or closer to this number.
    budget : int
        Calls of the score: different molecules evaluated.
    start : Mol or str, optional
        Look for molecules that are similar to this one.
    similarity : float
        Least Tanimoto similarity (Morgan fingerprints, radius 2, 2048 bits) to the start; below it the reward is
        multiplied with the ratio of the two.
    sigma : float
        What the reward counts, in nats, against the likelihood under the prior; ``math.inf`` forgets the prior.
    batch_size : int
        Strings written in a step.
    replay : int
        Strings in a step that are drawn from the hundred best molecules so far, in addition; 0 for none.
    diversity : int, optional
        So many times a scaffold (Murcko) is rewarded with more than 0.5; after that nothing with this scaffold earns
        anything, so that the model goes on to others. None for no limit.
    learning_rate : float
    seed : int
    progress : bool, optional
        Show a progress bar; if not given, only if stderr is a terminal.

    Returns
    -------
    Reinforcement

    Raises
    ------
    TypeError, ValueError
        If a parameter is of the wrong type or out of its range, the start is no molecule, or the first batch has no
        two molecules with different scores, which gives no scale.

    References
    ----------
    Likelihood anchor: Olivecrona et al., J. Cheminform. 9, 48 (2017), eq. 7; the baseline makes it exact (Richter et
    al., NeurIPS 2020). Diversity: Blaschke et al., J. Cheminform. 12, 68 (2020). Replay: Blaschke et al., J. Chem. Inf.
    Model. 60, 5918 (2020).
    """
    for name, value, least in (
        ("budget", budget, 2),
        ("batch_size", batch_size, 2),
        ("replay", replay, 0),
        ("diversity", 1 if diversity is None else diversity, 1),
        ("seed", seed, 0),
    ):
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ValueError(f"{name} must be an integer of at least {least}, got {value!r}")
    if not isinstance(model, LanguageModel):
        raise TypeError(f"model must be a LanguageModel, got {type(model).__name__}")
    if model.tokenizer.kind != "smiles":
        raise ValueError(f"model must write SMILES, got one that writes {model.tokenizer.kind}")
    if not sigma > 0:
        raise ValueError(f"sigma must be positive, got {sigma}")
    if not 0 < learning_rate < math.inf:
        raise ValueError(f"learning_rate must be positive and finite, got {learning_rate}")
    if not 0 <= similarity <= 1:
        raise ValueError(f"similarity must lie in 0…1, got {similarity}")
    if similarity > 0 and start is None:
        raise ValueError(f"similarity={similarity:g} needs the molecule to be similar to; give start")
    query = None
    if start is not None:
        given = as_molecules([start] if isinstance(start, str) else start, what="start")
        if len(given) != 1:
            raise ValueError(f"start must be one molecule, got {len(given)}")
        query = given[0]
    judge = _Judge(score_of(score), direction_of(direction), query, similarity, budget, diversity)
    prior, agent = model.decoder, copy.deepcopy(model)
    optimizer = torch.optim.Adam(agent.parameters(), lr=learning_rate)
    rng = np.random.default_rng(seed)
    history: list[Step] = []
    idle = 0
    disabled = None if progress is None else not progress
    with tqdm(total=budget, desc="reinforcement", unit="call", disable=disabled) as bar:
        while judge.calls < budget and idle < MOST_IDLE:
            texts = generate(agent.decoder, agent.tokenizer, batch_size, mask=False, seed=int(rng.integers(2**31)))
            found, before = molecules(texts), judge.calls
            rewards = judge.rewards(found, texts)
            idle = 0 if judge.calls > before else idle + 1
            if replay:
                again = judge.best(REMEMBERED)
                again = [again[i] for i in rng.integers(len(again), size=replay)]
                texts, rewards = texts + [text for text, _ in again], rewards + [reward for _, reward in again]
            with torch.no_grad():
                anchor = _log_probabilities(prior, model, texts)
            history.append(judge.step(found, float(anchor[:batch_size].mean())))
            bar.update(judge.calls - before)
            bar.set_postfix_str(f"score {history[-1].score:.4g}")
            own = _log_probabilities(agent.decoder, model, texts)
            advantage = torch.tensor(rewards, device=own.device) + (anchor - own.detach()) / sigma
            loss = -((advantage - advantage.mean()) * own).mean()
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(agent.parameters(), CLIP_NORM)
            optimizer.step()
    agent.metadata |= {
        "reinforcement": {"calls": judge.calls, "sigma": sigma if sigma < math.inf else None, "seed": seed}
    }
    return Reinforcement(agent.eval(), judge.found(stopped=judge.calls < budget), history)


def _log_probabilities(decoder: Decoder, model: LanguageModel, texts: list[str]) -> Tensor:
    """Logarithms of the probabilities of strings, nats, shape (n,)."""
    data = MoleculeDataset(texts, model.tokenizer, graphs=False)
    tokens = data.collate(list(range(len(texts)))).tokens.to(decoder.output.weight.device)
    return -token_losses(decoder(tokens[:, :-1]), tokens).sum(1)


@final
class _Judge:
    """Calls of the score, counted and kept, and what they earn."""

    def __init__(
        self,
        evaluate: Callable[[Chem.Mol], float],
        better: Callable[[Any], Any],
        start: Chem.Mol | None,
        similarity: float,
        budget: int,
        diversity: int | None,
    ) -> None:
        self.evaluate, self.better, self.start = evaluate, better, start
        self.similarity, self.budget, self.diversity = similarity, budget, diversity
        self.known: dict[str, _Known] = {}
        self.rewarded: Counter[str] = Counter()
        self.scale: tuple[float, float] | None = None

    @property
    def calls(self) -> int:
        return len(self.known)

    def rewards(self, found: Sequence[Chem.Mol | None], texts: Sequence[str]) -> list[float]:
        """What strings earn; molecules beyond the budget earn nothing."""
        names = ["" if mol is None else canonical(mol) for mol in found]
        for name, mol, text in zip(names, found, texts, strict=True):
            if mol is not None and name not in self.known and self.calls < self.budget:
                near = None if self.start is None else similarities(self.start, [mol])[0]
                scaffold = MurckoScaffold.MurckoScaffoldSmiles(mol=mol)
                self.known[name] = _Known(mol, text, float(self.evaluate(mol)), near, scaffold)
        if self.scale is None:
            values = [self.better(known.score) for known in self.known.values() if math.isfinite(known.score)]
            if len(set(values)) < 2:
                raise ValueError(
                    f"the first batch must have molecules with different scores, got {len(self.known)} molecules with "
                    f"{len(set(values))} different ones; give a larger batch_size, a finer score or a better model"
                )
            self.scale = float(np.mean(values)), float(np.std(values))
        return [self._reward(name) for name in names]

    def _reward(self, name: str) -> float:
        known = self.known.get(name)
        if known is None:
            return 0.0
        reward = self._full_reward(known)
        if self.diversity is None:
            return reward
        if self.rewarded[known.scaffold] >= self.diversity:
            return 0.0
        self.rewarded[known.scaffold] += reward > 0.5
        return reward

    def _full_reward(self, known: _Known) -> float:
        mean, deviation = cast(tuple[float, float], self.scale)
        if not math.isfinite(known.score):
            return 0.0
        reward = 0.5 + 0.5 * math.tanh((float(self.better(known.score)) - mean) / (2 * deviation))
        if known.similarity is not None and known.similarity < self.similarity:
            reward *= known.similarity / self.similarity
        return reward

    def best(self, n: int) -> list[tuple[str, float]]:
        """Strings and rewards of the best molecules so far."""
        rewards = [(known.text, self._full_reward(known)) for known in self.known.values()]
        return sorted(rewards, key=lambda item: (-item[1], item[0]))[:n]

    def step(self, found: Sequence[Chem.Mol | None], likelihood: float) -> Step:
        """Figures of a batch."""
        names = [canonical(mol) for mol in found if mol is not None]
        scores = [self.known[name].score for name in names if name in self.known]
        scores = [score for score in scores if math.isfinite(score)]
        return Step(
            self.calls,
            float(np.mean(scores)) if scores else math.nan,
            len(names) / len(found),
            len(set(names)) / max(1, len(names)),
            likelihood,
        )

    def found(self, *, stopped: bool) -> MoleculeList:
        """All molecules that will do, the best first."""
        good = [
            (-float(self.better(known.score)), name, known)
            for name, known in self.known.items()
            if math.isfinite(known.score) and (known.similarity is None or known.similarity >= self.similarity)
        ]
        good.sort(key=lambda item: item[:2])
        values: dict[str, list[float | None]] = {"score": [known.score for _, _, known in good]}
        if self.start is not None:
            values["similarity"] = [known.similarity for _, _, known in good]
        note = (
            f"{self.calls} molecules evaluated, {len(good)} of them similar enough." if self.start is not None else ""
        )
        if stopped:
            note += f" Stopped early: {MOST_IDLE} batches had no new molecule."
        return MoleculeList([known.mol for _, _, known in good], values, title="Reinforcement", note=note.strip())


class _Known(NamedTuple):
    """A molecule that was evaluated."""

    mol: Chem.Mol
    text: str  # as the model wrote it first
    score: float
    similarity: float | None
    scaffold: str
