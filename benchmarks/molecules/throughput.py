"""Training and sampling of the variational autoencoder: tokens and molecules per CPU second, beside MOSES' VAE.

    python benchmarks/molecules/throughput.py FILE [N]

One thread. molml trains on N molecules of FILE by its Trainer, MOSES on 1,536 of them by its own loop, each with the
batches it has by default, after a short run to warm up. A token is one that is predicted; the end counts. MOSES' tokens
are characters, so molecules per second are given as well. Sampling draws codes from the prior, decodes and writes
canonical SMILES: molml with the model that comes with the package, whose strings end where they end, MOSES with the one
just trained, whose `sample` takes 100 steps whatever it writes, and 45 for the comparison; what it writes is seldom a
molecule, which spares it the canonical SMILES. Without MOSES, molml is measured alone.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"  # before numpy is imported

import sys
import time
import warnings

import torch
from moses_peer import missing, revive
from rdkit import Chem

import molml
from molml.molecules.data import read_molecules
from molml.molecules.dataset import MoleculeDataset
from molml.molecules.fitting import CLIP_NORM, LEARNING_RATE, fast_precision
from molml.molecules.generation import different_molecules
from molml.molecules.loss import ELBO
from molml.molecules.model import MoleculeVAE
from molml.molecules.tokens import Tokenizer
from molml.training import Trainer

BATCH, WARM_UP, N_PEER, N_SAMPLES = 128, 1_024, 1_536, 8_192


def parameters(model: torch.nn.Module) -> str:
    """Millions of them."""
    return f"{sum(p.numel() for p in model.parameters()) / 1e6:.2f} M parameters"


def train(smiles: list[str], encoder: str, precision: torch.dtype) -> tuple[MoleculeVAE, float, float]:
    """Model, and tokens and molecules per CPU second."""
    tokenizer = Tokenizer.from_strings(smiles)
    model = MoleculeVAE(tokenizer, encoder=encoder)
    data = MoleculeDataset(smiles, tokenizer, graphs=model.kind == "graph", progress=False)
    optimizer = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE)

    def fit(part: MoleculeDataset) -> float:
        loss = ELBO(precision=precision)
        start = time.process_time()
        Trainer(
            model, loss, optimizer, batch_size=BATCH, max_epochs=1, clip_norm=CLIP_NORM, seed=0, progress=False
        ).fit(part)
        return time.process_time() - start

    fit(data.subset(range(WARM_UP)))
    seconds = fit(data)
    return model.eval(), data.n_tokens / seconds, len(data) / seconds


def sample(mask: bool) -> tuple[float, str]:
    """Molecules per CPU second of the model that comes with the package, and what they are like."""
    model = molml.load("druglike")
    rate, like = 0.0, ""
    # the first, shorter, time brings in what is imported and compiled once
    for n in (64, N_SAMPLES):
        start = time.process_time()
        strings = model.sample_strings(n, mask=mask)
        different = len(different_molecules(strings))
        rate = n / (time.process_time() - start)
        like = f"{different / n:.1%} different molecules, {sum(map(len, strings)) / n:.0f} characters each"
    return rate, like


def peer(smiles: list[str]) -> tuple[str, float, float, dict[int, float]]:
    """Size of MOSES' model, tokens and molecules per CPU second, and molecules sampled with 100 and 45 steps."""
    revive()
    from moses.vae import VAE, VAETrainer, vae_parser
    from tqdm import tqdm

    config = vae_parser().parse_args([])
    trainer = VAETrainer(config)
    vocabulary = trainer.get_vocabulary(smiles)
    model = VAE(vocabulary, config)
    optimizer = torch.optim.Adam(list(trainer.get_optim_params(model)), lr=config.lr_start)

    def fit(part: list[str]) -> float:
        batches = tqdm(trainer.get_dataloader(model, part), disable=True)
        start = time.process_time()
        trainer._train_epoch(model, 0, batches, config.kl_w_end, optimizer)
        return time.process_time() - start

    fit(smiles[: config.n_batch])
    seconds = fit(smiles)
    sampled = {}
    for n_steps in (100, 45):
        start = time.process_time()
        for mol in map(Chem.MolFromSmiles, model.eval().sample(config.n_batch, max_len=n_steps)):
            if mol is not None:
                Chem.MolToSmiles(mol)
        sampled[n_steps] = config.n_batch / (time.process_time() - start)
    n_tokens = sum(len(text) + 1 for text in smiles)
    return parameters(model), n_tokens / seconds, len(smiles) / seconds, sampled


def main(path: str, n: int) -> None:
    """Measure."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    smiles = read_molecules(path, progress=False).smiles[:n]
    precision = fast_precision()
    print("molml, the model that comes with the package", flush=True)
    sampled = {}
    for mask in (True, False):
        sampled[mask], like = sample(mask)
        how = "with the mask" if mask else "without"
        print(f"    sampling                    {sampled[mask]:7.0f} molecules/s   ({how}: {like})", flush=True)
    mine: dict[str, tuple[float, float]] = {}
    for encoder in ("graph", "convolutional"):
        model, tokens, rate = train(smiles, encoder, precision)
        print(f"molml, {encoder} encoder, {parameters(model)}, {precision}", flush=True)
        print(f"    training {tokens:8.0f} tokens/s  {rate:7.0f} molecules/s", flush=True)
        mine[encoder] = tokens, rate
    if (reason := missing()) is not None:
        raise SystemExit(reason)
    warnings.simplefilter("ignore")
    size, tokens, rate, steps = peer(smiles[:N_PEER])
    print(f"MOSES, {size}, float32\n    training {tokens:8.0f} tokens/s  {rate:7.0f} molecules/s")
    for n_steps, speed in steps.items():
        print(f"    sampling                    {speed:7.0f} molecules/s   ({n_steps} steps)")
    for encoder, (own_tokens, own_rate) in mine.items():
        print(f"molml / MOSES, training, {encoder}: tokens {own_tokens / tokens:.1f}, molecules {own_rate / rate:.1f}")
    for mask, own in sampled.items():
        ratios = ", ".join(f"{own / speed:.1f} ({n_steps} steps)" for n_steps, speed in steps.items())
        print(f"molml / MOSES, sampling, {'with the mask' if mask else 'without'}: {ratios}")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 12_000)
