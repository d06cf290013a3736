import itertools
import sys

import mdtraj
import numpy as np
import pytest
import torch

from molml import datasets
from molml.kinetics import (
    PCA,
    TICA,
    VAMP,
    Angles,
    Autoencoder,
    ContactDistances,
    Distances,
    Function,
    KMeans,
    MinimumDistances,
    Positions,
    ReferenceRMSD,
    ReversibleVAMPNet,
    TimeLaggedAutoencoder,
    Torsions,
    VAMPNet,
)
from molml.kinetics.biasing import HarmonicRestraint, openmm_force, plumed_input

# ---- an evaluator of PLUMED's language, of the manual alone, with derivatives of its own -----------------------------


class Dual:
    """Numbers (n_frames,) and their derivatives (n_frames, n_atoms, 3) with respect to all coordinates."""

    def __init__(self, value, gradient):
        self.value, self.gradient = value, gradient

    def chain(self, value, slope):
        return Dual(value, slope[:, None, None] * self.gradient)

    def __add__(self, other):
        other = constant(other, self)
        return Dual(self.value + other.value, self.gradient + other.gradient)

    def __mul__(self, other):
        other = constant(other, self)
        return Dual(
            self.value * other.value, other.chain(None, self.value).gradient + self.chain(None, other.value).gradient
        )

    def __sub__(self, other):
        return self + -1.0 * constant(other, self)

    def __truediv__(self, other):
        other = constant(other, self)
        return self * other.chain(1.0 / other.value, -1.0 / other.value**2)

    def __rtruediv__(self, other):
        return constant(other, self) / self

    __radd__, __rmul__ = __add__, __mul__


def constant(x, like):
    return x if isinstance(x, Dual) else Dual(np.full_like(like.value, x), np.zeros_like(like.gradient))


# those of Lepton's functions that are needed
FUNCTIONS = {
    "cos": lambda x: x.chain(np.cos(x.value), -np.sin(x.value)),
    "sin": lambda x: x.chain(np.sin(x.value), np.cos(x.value)),
    "tanh": lambda x: x.chain(np.tanh(x.value), 1.0 / np.cosh(x.value) ** 2),
    "step": lambda x: x.chain(np.where(x.value >= 0.0, 1.0, 0.0), np.zeros_like(x.value)),
    "abs": lambda x: x.chain(np.abs(x.value), np.sign(x.value)),
}


def sqrt(x):
    return x.chain(np.sqrt(x.value), 0.5 / np.sqrt(x.value))


def dot(u, v):
    return u[0] * v[0] + u[1] * v[1] + u[2] * v[2]


def cross(u, v):
    return [u[i - 2] * v[i - 1] - u[i - 1] * v[i - 2] for i in range(3)]


def vector(a, b):
    return [q - p for p, q in zip(a, b, strict=True)]


def distance(a, b):
    return sqrt(dot(vector(a, b), vector(a, b)))


def angle(a, b, c):
    u, v = vector(b, a), vector(b, c)
    cosine = dot(u, v) / sqrt(dot(u, u) * dot(v, v))
    return cosine.chain(np.arccos(cosine.value), -1.0 / np.sqrt(1.0 - cosine.value**2))


def torsion(a, b, c, d):
    u, v, w = vector(a, b), vector(b, c), vector(c, d)
    y, x = sqrt(dot(v, v)) * dot(u, cross(v, w)), dot(cross(u, v), cross(v, w))
    radius = x.value**2 + y.value**2
    gradient = y.chain(None, x.value / radius).gradient - x.chain(None, y.value / radius).gradient
    return Dual(np.arctan2(y.value, x.value), gradient)


def actions(text):
    """Label, action, keywords and flags of every action; lines from ``...`` to ``...`` are one."""
    joined = " ".join(line.split("#")[0].strip() + " \n" for line in text.splitlines())
    parts = joined.split("...")
    # every second part is inside of a block
    whole = "...".join(part.replace("\n", " ") if n % 2 else part for n, part in enumerate(parts))
    for line in filter(str.strip, whole.split("\n")):
        label, action, *words = line.replace("...", " ").split()
        assert label.endswith(":")
        yield label[:-1], action, dict(w.split("=", 1) for w in words if "=" in w), {w for w in words if "=" not in w}


def listed(text):
    return [float(word) for word in text.split(",")]


def combine(names, known, periodic, keywords):
    """Σ c (x - a)^p, in which x - a of a periodic x is that of the nearest image."""
    ones, zeros = ",".join(["1"] * len(names)), ",".join(["0"] * len(names))
    coefficients, parameters = listed(keywords.get("COEFFICIENTS", ones)), listed(keywords.get("PARAMETERS", zeros))
    assert len(names) == len(coefficients) == len(parameters)
    total = 0.0
    for name, c, a in zip(names, coefficients, parameters, strict=True):
        difference = known[name] - a
        turns = np.round(difference.value / (2.0 * np.pi)) * (name in periodic)
        total = c * Dual(difference.value - 2.0 * np.pi * turns, difference.gradient) + total
    return total


def ann(values, keywords):
    nodes, activations = [int(n) for n in keywords["NUM_NODES"].split(",")], keywords["ACTIVATIONS"].split(",")
    assert len(nodes) == int(keywords["NUM_LAYERS"]) == len(activations) + 1
    assert len(values) == nodes[0]
    numbered = {f"{kind}{i}" for kind in ("WEIGHTS", "BIASES") for i in range(len(activations))}
    assert set(keywords) == {"ARG", "NUM_LAYERS", "NUM_NODES", "ACTIVATIONS", *numbered}
    for i, name in enumerate(activations):
        weights, biases = listed(keywords[f"WEIGHTS{i}"]), listed(keywords[f"BIASES{i}"])
        assert (len(weights), len(biases)) == (nodes[i] * nodes[i + 1], nodes[i + 1])
        inputs = [
            sum((weights[row * nodes[i] + column] * x for column, x in enumerate(values)), constant(b, values[0]))
            for row, b in enumerate(biases)
        ]
        values = [{"Linear": lambda x: x, "Tanh": FUNCTIONS["tanh"]}[name](x) for x in inputs]
    return values


COLVARS = {"DISTANCE": (distance, 2), "ANGLE": (angle, 3), "TORSION": (torsion, 4)}


def collective_variable(action, atoms, keywords):
    function, n_atoms = COLVARS[action]
    numbers = [int(number) for number in keywords["ATOMS"].split(",")]
    assert len(numbers) == n_atoms and min(numbers) >= 1
    return function(*(atoms[number - 1] for number in numbers))


def evaluate(text, positions):
    """All labels, for positions (n_frames, n_atoms, 3) in nm."""
    unit = np.eye(positions[0].size).reshape(*positions.shape[1:], *positions.shape[1:])
    shape = (len(positions), *positions.shape[1:])
    atoms = [
        [Dual(positions[:, i, j], np.broadcast_to(unit[i, j], shape)) for j in range(3)]
        for i in range(positions.shape[1])
    ]
    known, periodic = {}, set()
    for label, action, keywords, flags in actions(text):
        names = [name for name in keywords.get("ARG", "").split(",") if name]
        assert flags <= ({"NOPBC"} if action in COLVARS else set())
        # a function of one value must say whether it is periodic; ANN does not know the word
        assert keywords.get("PERIODIC") == {"COMBINE": "NO", "CUSTOM": "NO"}.get(action)
        if action == "COMBINE":
            made = [combine(names, known, periodic, keywords)]
        elif action == "CUSTOM":
            made = [eval(keywords["FUNC"], {**FUNCTIONS, "x": known[names[0]]})]
        elif action == "ANN":
            made = ann([known[name] for name in names], keywords)
        else:
            made = [collective_variable(action, atoms, keywords)]
        labels = [f"{label}.node-{i}" for i in range(len(made))] if action == "ANN" else [label]
        assert not set(labels) & set(known)
        known |= dict(zip(labels, made, strict=True))
        periodic |= {label} if action == "TORSION" else set()
    return known


def test_evaluator_has_the_derivatives_of_its_values():
    functions = ("cos(x)", "0.5+0.5*tanh(0.5*x)", "x*step(x)", "x/(1+abs(x))", "1/x")
    text = "t: TORSION ATOMS=1,2,3,4\na: ANGLE ATOMS=2,3,4 NOPBC\nd: DISTANCE ATOMS=1,4 # comment\n" + "\n".join(
        f"f{n}: CUSTOM ARG=t FUNC={function} PERIODIC=NO" for n, function in enumerate(functions)
    )
    positions = np.random.default_rng(1).normal(size=(3, 4, 3))
    found = evaluate(text, positions)
    for i, j in itertools.product(range(4), range(3)):
        step = np.zeros((4, 3))
        step[i, j] = 1e-6
        up, down = evaluate(text, positions + step), evaluate(text, positions - step)
        for name, dual in found.items():
            slope = (up[name].value - down[name].value) / 2e-6
            np.testing.assert_allclose(dual.gradient[:, i, j], slope, rtol=1e-6, atol=1e-8)
    frames = mdtraj.Trajectory(positions, None)
    # mdtraj has single precision
    np.testing.assert_allclose(found["t"].value, mdtraj.compute_dihedrals(frames, [[0, 1, 2, 3]])[:, 0], atol=1e-5)
    np.testing.assert_allclose(found["a"].value, mdtraj.compute_angles(frames, [[1, 2, 3]])[:, 0], atol=1e-5)
    np.testing.assert_allclose(found["d"].value, mdtraj.compute_distances(frames, [[0, 3]])[:, 0], atol=1e-5)


def test_evaluator_understands_the_examples_of_the_manual():
    positions = np.random.default_rng(2).normal(size=(5, 4, 3))
    text = """
    x: DISTANCE ATOMS=1,2
    y: DISTANCE ATOMS=2,3
    ann: ANN ...
      ARG=x,y
      NUM_LAYERS=3
      NUM_NODES=2,3,1
      ACTIVATIONS=Tanh,Linear
      WEIGHTS0=1,2,3,4,5,6
      WEIGHTS1=7,8,9
      BIASES0=-10,-11,-12
      BIASES1=13
    ...
    c: COMBINE ARG=x,y COEFFICIENTS=2,-3 PARAMETERS=0.5,1.5 PERIODIC=NO
    one: COMBINE ARG=ann.node-0 PERIODIC=NO
    t: TORSION ATOMS=1,2,3,4
    near: COMBINE ARG=t PARAMETERS=3 PERIODIC=NO
    """
    known = evaluate(text, positions)
    x, y = known["x"].value, known["y"].value
    hidden = [np.tanh(x + 2 * y - 10), np.tanh(3 * x + 4 * y - 11), np.tanh(5 * x + 6 * y - 12)]
    np.testing.assert_allclose(known["one"].value, 7 * hidden[0] + 8 * hidden[1] + 9 * hidden[2] + 13, rtol=1e-14)
    np.testing.assert_allclose(known["c"].value, 2 * (x - 0.5) - 3 * (y - 1.5), rtol=1e-14)
    t = known["t"].value
    np.testing.assert_allclose(known["near"].value, np.arctan2(np.sin(t - 3), np.cos(t - 3)), atol=1e-14)


# ---- real frames, features and estimators ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def runs():
    folder = datasets.path("alanine-dipeptide")
    return [mdtraj.load(folder / f"run-{n}.xtc", top=folder / "topology.pdb")[::3] for n in (1, 4)]


@pytest.fixture(scope="module")
def topology(runs):
    return runs[0].topology


@pytest.fixture(scope="module")
def frames(runs):
    """A hundred frames, Å, in double precision."""
    return 10.0 * runs[0].xyz[:: len(runs[0]) // 100][:100].astype(np.float64)


FEATURES = {
    "torsions": lambda topology: Torsions(topology),
    "angles of torsions": lambda topology: Torsions(topology, cossin=False),
    "distances and angles": lambda topology: Distances(topology) + Angles(topology),
    "all": lambda topology: (
        Torsions(topology, ("phi",))
        + Angles(topology, triplets=[[3, 4, 6]])
        + Distances(topology, pairs=[[0, 9]], periodic=False)
        + MinimumDistances(topology, [["name CB", "index 0"], ["name CB", "index 9"]])
        + Torsions(topology, ("psi",), cossin=False)
    ),
}
OPTIONS = {"n_components": 2, "hidden": (7, 5), "max_epochs": 2, "seed": 0, "progress": False}
CASES = {
    "TICA of torsions": (lambda: TICA(lagtime=2, n_components=2), "torsions"),
    "TICA of distances and angles": (lambda: TICA(lagtime=2, n_components=3), "distances and angles"),
    "VAMP of torsions": (lambda: VAMP(lagtime=2, n_components=1), "torsions"),
    "PCA of angles of torsions": (lambda: PCA(n_components=2), "angles of torsions"),
    "PCA of all": (lambda: PCA(n_components=4), "all"),
    "tanh": (lambda: ReversibleVAMPNet(lagtime=2, **OPTIONS), "torsions"),
    "logistic": (lambda: VAMPNet(lagtime=2, activation="logistic", **OPTIONS), "distances and angles"),
    "silu": (lambda: Autoencoder(activation="silu", **OPTIONS), "all"),
    "relu": (lambda: TimeLaggedAutoencoder(lagtime=2, activation="relu", **OPTIONS), "all"),
    "softsign": (lambda: Autoencoder(activation="softsign", **OPTIONS), "torsions"),
}


@pytest.fixture(scope="module")
def fitted(runs, topology):
    made = {}

    def fit(case):
        estimator, name = CASES[case]
        features = FEATURES[name](topology)
        made.setdefault(case, (estimator().fit([features(run).astype(np.float64) for run in runs]), features))
        return made[case]

    return fit


def ours(estimator, features, frames):
    """Coordinates (n_frames, n_components), and their derivatives (n_components, n_frames, n_atoms, 3), 1/Å."""
    positions = torch.tensor(frames, requires_grad=True)
    x = features.tensor(positions)
    if hasattr(estimator, "as_module"):
        z = estimator.as_module()(x)
    else:
        z = (x - torch.as_tensor(estimator.mean_)) @ torch.as_tensor(estimator.components_).T
    gradients = [torch.autograd.grad(column.sum(), positions, retain_graph=True)[0].numpy() for column in z.T]
    return estimator.transform(features(frames)), np.stack(gradients)


def check_plumed(text, estimator, features, frames):
    z, gradients = ours(estimator, features, frames)
    known = evaluate(text, frames / 10.0)
    for k in range(z.shape[1]):
        found = known[f"z{k + 1}"]
        # both in double precision: what they differ by is rounding
        np.testing.assert_allclose(found.value, z[:, k], rtol=1e-9, atol=1e-9 * np.abs(z).max())
        scale = np.abs(gradients[k]).max()
        np.testing.assert_allclose(found.gradient / 10.0, gradients[k], rtol=1e-9, atol=1e-9 * scale)


# ---- PLUMED ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES)
def test_plumed_has_our_values_and_gradients(case, fitted, frames):
    estimator, features = fitted(case)
    assert len(frames) == 100
    check_plumed(plumed_input(estimator, features), estimator, features, frames)


@pytest.mark.parametrize("case", CASES)
def test_gradient_that_is_compared_is_that_of_transform(case, fitted, frames):
    estimator, features = fitted(case)
    few = frames[:3]
    _, gradients = ours(estimator, features, few)
    for i, j in itertools.product(range(10), range(3)):
        step = np.zeros((10, 3))
        step[i, j] = 1e-5
        up, down = (estimator.transform(features(few + s)) for s in (step, -step))
        np.testing.assert_allclose(gradients[:, :, i, j].T, (up - down) / 2e-5, atol=1e-6 * np.abs(gradients).max())


def changed(word, text):
    """The text with the last number of a keyword changed by a thousandth."""
    line = next(line for line in text.splitlines() if f"{word}=" in line)
    numbers = line.split(f"{word}=")[1].split()[0].split(",")
    other = [*numbers[:-1], repr(float(numbers[-1]) * 1.001)]
    return text.replace(",".join(numbers), ",".join(other))


@pytest.mark.parametrize(
    ("case", "word"),
    [
        ("TICA of torsions", "COEFFICIENTS"),
        ("TICA of torsions", "PARAMETERS"),
        ("PCA of all", "COEFFICIENTS"),
        ("tanh", "WEIGHTS0"),
        ("tanh", "BIASES0"),
        ("silu", "WEIGHTS0"),
        ("silu", "BIASES0"),
    ],
)
def test_changed_number_is_noticed(case, word, fitted, frames):
    estimator, features = fitted(case)
    text = plumed_input(estimator, features)
    assert changed(word, text) != text
    with pytest.raises(AssertionError, match="Not equal"):
        check_plumed(changed(word, text), estimator, features, frames)


@pytest.mark.parametrize(
    ("case", "old", "new"),
    [
        ("TICA of torsions", "ATOMS=2,4,5,7", "ATOMS=2,4,7,5"),
        ("TICA of torsions", "FUNC=cos(x)", "FUNC=sin(x)"),
        ("tanh", "Tanh", "Linear"),
        ("relu", "x*step(x)", "x"),
    ],
)
def test_changed_line_is_noticed(case, old, new, fitted, frames):
    estimator, features = fitted(case)
    text = plumed_input(estimator, features)
    assert old in text
    with pytest.raises(AssertionError, match="Not equal"):
        check_plumed(text.replace(old, new), estimator, features, frames)


def test_lengths_are_in_nm(fitted, frames):
    estimator, features = fitted("TICA of distances and angles")
    text = plumed_input(estimator, features)
    z = estimator.transform(features(frames))[:, 0]
    np.testing.assert_allclose(evaluate(text, frames / 10.0)["z1"].value, z, rtol=1e-9)
    # control: Å are not taken
    assert np.abs(evaluate(text, frames)["z1"].value - z).min() > 0.1


def test_angle_near_its_jump_is_not_shifted(topology, runs):
    # phi - mean of more than half a turn: COMBINE would take the other image, were phi not made aperiodic before
    features = Torsions(topology, cossin=False)
    estimator = PCA(n_components=2).fit([features(run).astype(np.float64) for run in runs])
    estimator.mean_ = np.array([3.0, -3.0])
    frames = 10.0 * runs[0].xyz[::10].astype(np.float64)
    assert (np.abs(features(frames) - estimator.mean_) > np.pi).any()
    text = plumed_input(estimator, features)
    check_plumed(text, estimator, features, frames)
    # control: the periodic torsion itself is taken
    names = [f"z_f{n}" for n in (1, 2)]
    direct = text.replace(f"ARG={','.join(names)}", f"ARG={','.join(f'{name}_angle' for name in names)}")
    assert direct != text
    with pytest.raises(AssertionError, match="Not equal"):
        check_plumed(direct, estimator, features, frames)


def test_atoms_are_renumbered(fitted, frames):
    estimator, features = fitted("PCA of all")
    numbers = np.random.default_rng(0).permutation(30)[:10]
    larger = np.random.default_rng(1).normal(size=(len(frames), 30, 3))
    larger[:, numbers] = frames
    text = plumed_input(estimator, features, atoms=numbers)
    z, gradients = ours(estimator, features, frames)
    known = evaluate(text, larger / 10.0)
    for k in range(4):
        found = known[f"z{k + 1}"]
        np.testing.assert_allclose(found.value, z[:, k], rtol=1e-9, atol=1e-9)
        expected = np.zeros((len(frames), 30, 3))
        expected[:, numbers] = gradients[k]
        np.testing.assert_allclose(found.gradient / 10.0, expected, rtol=1e-9, atol=1e-9 * np.abs(expected).max())
    # control: without the numbers other atoms are taken
    assert np.abs(evaluate(plumed_input(estimator, features), larger / 10.0)["z1"].value - z[:, 0]).max() > 0.1


def test_text_of_a_linear_coordinate(topology):
    features = Distances(topology, pairs=[[0, 9]], periodic=False)
    estimator = PCA(n_components=1).fit(np.array([[1.0], [3.0]]))
    # components_ is 1 or -1, mean_ is 2 Å
    sign = float(estimator.components_[0, 0])
    assert plumed_input(estimator, features, label="slow") == (
        "# lengths in nm; made by molml for PCA\n"
        "slow_f1: DISTANCE ATOMS=1,10 NOPBC\n"
        f"slow1: COMBINE ARG=slow_f1 COEFFICIENTS={10.0 * sign} PARAMETERS=0.2 PERIODIC=NO\n"
    )


def test_distances_of_alpha_carbons(frames):
    topology = mdtraj.Topology()
    chain = topology.add_chain()
    for _ in range(5):
        residue = topology.add_residue("ALA", chain)
        for name, element in (("N", mdtraj.element.nitrogen), ("CA", mdtraj.element.carbon)):
            topology.add_atom(name, element, residue)
    features = ContactDistances(topology, [(0, 3), (4, 1)], scheme="ca")
    estimator = TICA(lagtime=1, n_components=2).fit(features(frames))
    text = plumed_input(estimator, features)
    assert "ATOMS=2,8\n" in text and "ATOMS=10,4\n" in text
    check_plumed(text, estimator, features, frames)


def test_periodic_images_are_those_of_the_features(topology, runs):
    for periodic, flag in ((True, ""), (False, " NOPBC")):
        features = Torsions(topology, periodic=periodic)
        text = plumed_input(PCA(n_components=1).fit(features(runs[0])), features)
        assert f"z_f1_angle: TORSION ATOMS=2,4,5,7{flag}\n" in text


def double(positions):
    return 2.0 * positions[..., 0, :1]


def test_features_that_plumed_cannot_make_are_refused(topology, runs):
    for features in (
        Positions(topology, reference=runs[0][0]),
        ReferenceRMSD(topology, reference=runs[0][0]),
        MinimumDistances(topology, [["name CB", "resname NME"]]),
        ContactDistances(topology, [(0, 2)]),
        Torsions(topology) + Function(double, ["x"], differentiable=double),
    ):
        estimator = PCA(n_components=1).fit(features(runs[0]))
        with pytest.raises(ValueError, match="must be torsions, angles or distances of atom pairs to be wr"):
            plumed_input(estimator, features)


@pytest.mark.parametrize("label", ["1z", "a b", "", "z-", "ξ"])
def test_bad_label_is_refused(label, fitted):
    with pytest.raises(ValueError, match="label must be letters, digits and _, beginning with no digit, got"):
        plumed_input(*fitted("TICA of torsions"), label=label)


def test_activation_that_plumed_cannot_make_is_refused(fitted, monkeypatch):
    estimator, features = fitted("tanh")
    module = estimator.as_module()
    module[1] = torch.nn.ELU()
    monkeypatch.setattr(type(estimator), "as_module", lambda self: module)
    with pytest.raises(ValueError, match="tanh, logistic, silu, relu or softsign to be written for PLUMED, got ELU"):
        plumed_input(estimator, features)


def test_constant_component_is_refused(topology, runs):
    features = Torsions(topology)
    estimator = PCA(n_components=2).fit(features(runs[0]))
    estimator.components_ = np.stack([estimator.components_[0], np.zeros(4)])
    with pytest.raises(ValueError, match="component 2 is a constant, which nothing can push; fit with fewer"):
        plumed_input(estimator, features)


def for_openmm(estimator, features, **options):
    pytest.importorskip("openmm", reason="openmm is not installed")
    return openmm_force(estimator, features, torch.sum, **options)


@pytest.mark.parametrize("export", [plumed_input, for_openmm])
def test_what_users_get_wrong(export, topology, runs, fitted):
    estimator, features = fitted("TICA of torsions")
    with pytest.raises(ValueError, match="not fitted yet"):
        export(TICA(lagtime=2), features)
    with pytest.raises(TypeError, match="is not an estimator"):
        export("tica", features)
    with pytest.raises(TypeError, match=r"features must be a featurizer such as Torsions\(topology\), got function"):
        export(estimator, double)
    with pytest.raises(TypeError, match=r"PCA, TICA, VAMP, autoencoders, VAMPnets\), got KMeans"):
        export(KMeans(n_clusters=2, seed=0).fit(features(runs[0])), features)
    with pytest.raises(ValueError, match="features must be those the estimator was fitted to, got 45 for an .* of 4"):
        export(estimator, Distances(topology))
    function = Function(double, ["x"], differentiable=double)
    with pytest.raises(ValueError, match="made for a number of atoms, got a Function"):
        export(PCA(n_components=1).fit(function(runs[0])), function)
    for atoms in (range(9), np.arange(10.0), [-1, *range(9)], [range(10)]):
        with pytest.raises(ValueError, match="atoms must be the number, from 0, of each of the 10 atoms, got"):
            export(estimator, features, atoms=atoms)
    with pytest.raises(ValueError, match="atoms must all be different, got some of them twice"):
        export(estimator, features, atoms=[0, *range(9)])


# ---- OpenMM ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def openmm():
    return pytest.importorskip("openmm", reason="openmm is not installed")


def context_of(openmm, force, n_particles=10, *, bonds=(), temperature=300.0):
    system = openmm.System()
    for _ in range(n_particles):
        system.addParticle(12.0)
    system.addForce(force)
    springs = openmm.HarmonicBondForce()
    for a, b, length in bonds:
        springs.addBond(a, b, length, 1e5)
    system.addForce(springs)
    integrator = openmm.LangevinMiddleIntegrator(temperature, 10.0, 0.002)
    integrator.setRandomNumberSeed(1)
    return openmm.Context(system, integrator, openmm.Platform.getPlatformByName("Reference"))


def energy_and_forces(context, positions):
    """kJ/mol and kJ/mol/nm, for one frame in nm."""
    context.setPositions(positions)
    state = context.getState(energy=True, forces=True)
    return state.getPotentialEnergy()._value, state.getForces(asNumpy=True)._value


def check_openmm(context, bias, estimator, features, frames, atoms=slice(None), larger=None):
    z, gradients = ours(estimator, features, frames)
    positions = frames if larger is None else larger
    for n, frame in enumerate(positions):
        energy, forces = energy_and_forces(context, frame / 10.0)
        value = torch.tensor(z[n], requires_grad=True)
        expected = bias(value)
        (slope,) = torch.autograd.grad(expected, value)
        assert energy == pytest.approx(expected.item(), rel=1e-9, abs=1e-9)
        force = np.zeros_like(frame)
        # a gradient in 1/Å is ten times larger in 1/nm
        force[atoms] = -10.0 * np.tensordot(slope.numpy(), gradients[:, n], 1)
        np.testing.assert_allclose(forces, force, rtol=1e-8, atol=1e-9 * np.abs(force).max())


def quartic(z):
    return (z**4).sum() + z[0]


@pytest.mark.parametrize("case", ["TICA of torsions", "PCA of all", "tanh", "silu"])
@pytest.mark.parametrize("kind", ["harmonic", "quartic"])
def test_openmm_has_our_energy_and_forces(case, kind, openmm, fitted, frames):
    estimator, features = fitted(case)
    centre = [1.5, -0.5, 0.0, 0.3][: estimator.n_components]
    bias = {"harmonic": HarmonicRestraint(50.0, centre), "quartic": quartic}[kind]
    context = context_of(openmm, openmm_force(estimator, features, bias))
    check_openmm(context, bias, estimator, features, frames)
    # control: another bias is noticed
    with pytest.raises(AssertionError):
        check_openmm(context, lambda z: 1.001 * bias(z), estimator, features, frames)


def test_openmm_takes_the_energy_apart_from_our_code(openmm, topology, frames):
    # half of 50 kJ/mol/Å² times the square of a distance, whose force pulls the two atoms together
    features = Distances(topology, pairs=[[0, 9]])
    estimator = PCA(n_components=1).fit(np.array([[1.0], [3.0]]))
    estimator.components_, estimator.mean_ = np.array([[1.0]]), np.array([0.0])
    context = context_of(openmm, openmm_force(estimator, features, HarmonicRestraint(50.0, [4.0])))
    for frame in frames[:10]:
        energy, forces = energy_and_forces(context, frame / 10.0)
        between = frame[9] - frame[0]
        length = np.linalg.norm(between)
        assert energy == pytest.approx(25.0 * (length - 4.0) ** 2, rel=1e-9)
        pull = 50.0 * (length - 4.0) * between / length * 10.0
        np.testing.assert_allclose(forces[[0, 9]], [pull, -pull], rtol=1e-8)
        np.testing.assert_array_equal(forces[1:9], 0.0)


def test_openmm_pushes_only_the_atoms_it_is_told(openmm, fitted, frames):
    estimator, features = fitted("TICA of torsions")
    numbers = np.random.default_rng(0).permutation(30)[:10]
    larger = np.random.default_rng(1).normal(size=(len(frames), 30, 3))
    larger[:, numbers] = frames
    bias = HarmonicRestraint(20.0, [1.0, 0.0])
    context = context_of(openmm, openmm_force(estimator, features, bias, atoms=numbers), 30)
    check_openmm(context, bias, estimator, features, frames, numbers, larger)
    with pytest.raises(AssertionError):
        check_openmm(context, bias, estimator, features, frames, np.sort(numbers), larger)


@pytest.mark.parametrize("case", ["TICA of torsions", "silu"])
def test_openmm_force_can_be_stored(case, openmm, fitted, frames):
    estimator, features = fitted(case)
    bias = HarmonicRestraint(50.0, [1.5, 0.0])
    text = openmm.XmlSerializer.serialize(openmm_force(estimator, features, bias, atoms=range(10)))
    context = context_of(openmm, openmm.XmlSerializer.deserialize(text))
    check_openmm(context, bias, estimator, features, frames[:10])


def test_biased_run_goes_to_the_centre(openmm, fitted, frames):
    estimator, features = fitted("TICA of torsions")
    z = estimator.transform(features(frames))
    start, centre = frames[z[:, 0].argmin()] / 10.0, z[z[:, 0].argmax()]
    # bond lengths and angles are held, torsions are free
    chain = [(0, 1), (1, 2), (1, 3), (3, 4), (4, 5), (4, 6), (6, 7), (6, 8), (8, 9)]
    chain += [(0, 2), (0, 3), (2, 3), (1, 4), (3, 5), (3, 6), (5, 6), (4, 7), (4, 8), (7, 8), (6, 9)]
    bonds = [(a, b, np.linalg.norm(start[a] - start[b])) for a, b in chain]

    def last_coordinates(k):
        force = openmm_force(estimator, features, HarmonicRestraint(k, centre))
        context = context_of(openmm, force, bonds=bonds)
        context.setPositions(start)
        context.setVelocitiesToTemperature(300.0, 1)
        seen = []
        for _ in range(60):
            context.getIntegrator().step(25)
            seen.append(10.0 * context.getState(positions=True).getPositions(asNumpy=True)._value)
        return estimator.transform(features(np.array(seen[30:])))

    assert np.abs(z[z[:, 0].argmin()] - centre).max() > 1.0
    # of a standard deviation of (kT/k)^1/2 = 0.11
    assert np.abs(last_coordinates(200.0).mean(axis=0) - centre).max() < 0.25
    # control: hardly any bias
    assert np.abs(last_coordinates(1e-6).mean(axis=0) - centre).max() > 0.25


def infinite(z):
    return (z / 0.0).sum()


def test_openmm_says_what_is_wrong_in_a_run(openmm, fitted, frames):
    estimator, features = fitted("TICA of torsions")
    larger = np.concatenate([frames[0], [[9.0, 9.0, 9.0]]]) / 10.0
    force = openmm_force(estimator, features, HarmonicRestraint(1.0, [0.0, 0.0]))
    with pytest.raises(openmm.OpenMMException, match="atoms must be told: the features are of 10 atoms, .* has 11"):
        energy_and_forces(context_of(openmm, force, 11), larger)
    force = openmm_force(estimator, features, infinite)
    with pytest.raises(openmm.OpenMMException, match=r"the bias must be finite, got an energy of .* kJ/mol"):
        energy_and_forces(context_of(openmm, force), frames[0] / 10.0)


def test_bias_that_is_none_is_refused(openmm, fitted, topology, runs):
    estimator, features = fitted("TICA of torsions")
    with pytest.raises(TypeError, match="bias must be a function of the coordinates, got float"):
        openmm_force(estimator, features, 3.0)
    for bias in (lambda z: z, lambda z: len(z), lambda z: z.sum().detach()):
        with pytest.raises(TypeError, match="bias must return a tensor with one number that can be differentiated"):
            openmm_force(estimator, features, bias)
    with pytest.raises(ValueError, match=r"centre must have one number for each of the 2 components, got \[1\.0\]"):
        openmm_force(estimator, features, HarmonicRestraint(1.0, [1.0]))
    joined = features + Function(double, ["x"])
    with pytest.raises(TypeError, match="differentiable must be given to Function"):
        openmm_force(PCA(n_components=1).fit(joined(runs[0])), joined, torch.sum)


def test_restraint():
    restraint = HarmonicRestraint(4.0, [1.0, -1.0])
    assert restraint(torch.tensor([2.0, 2.0])).item() == 20.0
    assert repr(restraint) == "HarmonicRestraint(4.0, [1.0, -1.0])"
    for k in (0.0, -1.0, np.nan, np.inf):
        with pytest.raises(ValueError, match="k must be positive, got"):
            HarmonicRestraint(k, [0.0])
    for centre in (1.0, [[1.0]], [np.nan]):
        with pytest.raises(ValueError, match="centre must be a list of finite numbers, one for each component, got"):
            HarmonicRestraint(1.0, centre)


@pytest.mark.parametrize("old", [None, type(sys)("openmm")])
def test_missing_or_old_openmm_is_named(old, fitted, monkeypatch):
    monkeypatch.setitem(sys.modules, "openmm", old)
    with pytest.raises(ModuleNotFoundError, match=r"openmm_force needs OpenMM with PythonForce \(8\.5 or later\)"):
        openmm_force(*fitted("TICA of torsions"), torch.sum)
