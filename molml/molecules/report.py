"""What a training leaves behind for a reader: metrics.json, figures and one self-contained report.html."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from molml.io import write_atomic
from molml.molecules.display import MoleculeList
from molml.molecules.evaluation import evaluate
from molml.molecules.generation import generate, molecules
from molml.molecules.model import MoleculeVAE
from molml.molecules.plots import plot_latent_map, plot_properties
from molml.molecules.properties import properties
from molml.pages import Figures, cards, page, table
from molml.training.plots import plot_history

if TYPE_CHECKING:
    from molml.molecules.language import LanguageModel

__all__ = ["write_report"]

N_EVALUATED = 1000
SHOWN = ("logP", "QED", "SA", "MW")
TITLES = {
    "reconstruction": "reconstructed",
    "validity": "of the samples are molecules",
    "uniqueness": "of these are different",
    "novelty": "of these are new",
}
MEANINGS = {
    "reconstruction": "held-out molecules that come back, decoded greedily from their mean code",
    "kl": "nats per molecule that the code carries: KL(q(z|x) ‖ N(0, 1))",
    "active_units": "dimensions of the code that vary with the molecule",
    "log_likelihood": "nats per held-out molecule",
    "validity": "samples, each the first try, that RDKit accepts, with the grammar's mask",
    "validity_without_mask": "the same without the mask: what the model has learned by itself",
    "uniqueness": "different ones among the valid samples",
    "novelty": "different samples that are no training molecules",
    "n_valid": "held-out molecules",
    "n_samples": "samples",
}


def write_report(
    folder: Path,
    model: MoleculeVAE | LanguageModel,
    train: Sequence[str],
    valid: Sequence[str],
    *,
    history: Sequence[Mapping[str, float]] = (),
    seed: int = 0,
) -> dict[str, dict[str, float]]:
    """Evaluate a model and write metrics.json, figures and report.html.

    Parameters
    ----------
    folder : Path
    model : MoleculeVAE or LanguageModel
    train, valid : sequences of str
        Canonical SMILES that the model was trained on, and held out; 1000 of the latter are evaluated at most.
    history : sequence of mappings
        Lines of metrics.jsonl.
    seed : int

    Returns
    -------
    dict of str to dict
        ``{"valid": …}``, as in metrics.json.
    """
    rng = np.random.default_rng(seed)
    chosen = [valid[i] for i in np.sort(rng.permutation(len(valid))[:N_EVALUATED])]
    metrics = {"valid": evaluate(model, chosen, train, n_samples=N_EVALUATED, seed=seed)}
    write_atomic(folder / "metrics.json", (json.dumps(metrics, indent=2, allow_nan=False) + "\n").encode())
    found = metrics["valid"]
    figures = Figures(folder)
    body = [
        f"<h1>{type(model).__name__}</h1>",
        f"<p class=sub>{html.escape(_summary(model, len(train)))}</p>",
        cards([(f"{100 * found[name]:.1f} %", title) for name, title in TITLES.items() if name in found]),
        "<h2>On molecules held out, and on samples</h2>",
        table(["", "", ""], [[name, f"{value:.4g}", MEANINGS[name]] for name, value in found.items()], text=(0, 2)),
    ]
    if history:
        draw = partial(plot_history, list(history), name="objective")
        body += ["<h2>Training</h2>", figures.html("learning_curve", draw, "Objective of training and validation")]
    samples = _samples(model, seed)
    few = MoleculeList(samples[:20], columns=5, title="Samples")
    body += ["<h2>Samples</h2>", f"<div class=wide>{few.svg()}</div>"]
    few.save(folder / "samples.svg")
    if samples:
        known = properties(samples, SHOWN, progress=False)
        held_out = properties(chosen, SHOWN, progress=False)
        body.append("<div class=grid>")
        for name in SHOWN:
            draw = partial(plot_properties, {"held out": held_out[name], "samples": known[name]}, label=name)
            body.append(figures.html(f"{name.lower()}", draw, f"{name} of samples and of held-out molecules"))
        body.append("</div>")
        if isinstance(model, MoleculeVAE):
            usable = [text for text in chosen if not model.tokenizer.unknown(text)]
            values = properties(usable, ["logP"], progress=False)["logP"].to_numpy()
            draw = partial(plot_latent_map, model.encode(usable), values, label="logP")
            body += ["<h2>Map of the codes</h2>", figures.html("latent_map", draw, "Held-out molecules by their codes")]
    write_atomic(folder / "report.html", page(f"{type(model).__name__}: report", body))
    return metrics


def _samples(model: MoleculeVAE | LanguageModel, seed: int) -> list:
    if isinstance(model, MoleculeVAE):
        found = molecules(model.sample_strings(N_EVALUATED, seed=seed))
    else:
        found = molecules(generate(model.decoder, model.tokenizer, N_EVALUATED, seed=seed))
    return [mol for mol in found if mol is not None]


def _summary(model: MoleculeVAE | LanguageModel, n_train: int) -> str:
    n = sum(parameter.numel() for parameter in model.parameters())
    training = model.metadata.get("training", {})
    time = f", {training['minutes']:g} minutes" if "minutes" in training else ""
    return f"{n:,} parameters, {len(model.tokenizer)} tokens; trained on {n_train:,} molecules{time}"
