"""A variational autoencoder of molecules."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast, final

import numpy as np
import torch
from rdkit import Chem
from torch import Tensor, nn

from molml.io import Container, ModelFileError, save_container
from molml.molecules import exploration, optimisation
from molml.molecules.data import as_molecules, canonical
from molml.molecules.dataset import ATOM_SIZES, BOND_SIZES, MoleculeBatch, MoleculeDataset
from molml.molecules.decoder import Decoder
from molml.molecules.encoders import ENCODERS, ConvolutionalEncoder, GraphEncoder, RecurrentEncoder
from molml.molecules.generation import different_molecules, generate, molecules
from molml.molecules.loss import fast_precision
from molml.molecules.tokens import Tokenizer
from molml.nn import MLP, CouplingFlow

if TYPE_CHECKING:
    import pandas

ENCODED, DECODED = 256, 1024  # molecules at a time
MOST_ROUNDS = 20
PRIOR_NOISE = 1.0  # in the codes that the prior is fitted to
# of samples: with less of either more molecules are like each other, with more fewer are valid without the mask; chosen
# by benchmarks/molecules/choices.py
NOISE, TEMPERATURE = 1.5, 0.7


@final
class MoleculeVAE(nn.Module):
    """Molecules as points of a space, and points as molecules.

    An encoder gives the normal distribution q(z|x) of a molecule's code, a recurrent decoder the canonical SMILES (or
    SELFIES) of a code, token after token, and a small network properties of it. The codes of the training molecules
    are seldom spread like N(0, 1) where reconstruction is good, so the prior can be a learned one.

    Parameters
    ----------
    tokenizer : Tokenizer
    encoder : "graph", "convolutional" or "recurrent"
        The first reads atoms and bonds, the others the tokens.
    n_latent : int
        Width of the code.
    hidden : int
        Width of the decoder's state.
    properties : sequence of str
        Names of properties to predict from the code.
    seed : int
        Of the initial weights.
    metadata : mapping, optional
        JSON-able facts that travel with the model: hash of the data, metrics, licence.

    Attributes
    ----------
    decoder : Decoder
    predictor : MLP or None
        Code to standardised properties.
    prior : CouplingFlow or None
        Learned distribution of the codes with noise of standard deviation 1; None stands for N(0, 2).

    Raises
    ------
    TypeError, ValueError
        If a parameter is out of its range.

    References
    ----------
    Kingma and Welling, ICLR 2014; Gómez-Bombarelli et al., ACS Cent. Sci. 4, 268 (2018).
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        *,
        encoder: str = "graph",
        n_latent: int = 64,
        hidden: int = 384,
        properties: Sequence[str] = (),
        seed: int = 0,
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if encoder not in ENCODERS:
            raise ValueError(f"encoder must be one of {', '.join(ENCODERS)}, got {encoder!r}")
        if n_latent < 2:
            raise ValueError(f"n_latent must be at least 2, got {n_latent}; LanguageModel is the model without a code")
        self.tokenizer, self.kind, self.n_latent, self.hidden = tokenizer, encoder, n_latent, hidden
        self.metadata = dict(metadata or {})
        n = len(tokenizer)
        self.encoder: nn.Module
        if encoder == "graph":
            self.encoder = GraphEncoder(ATOM_SIZES, BOND_SIZES, n_latent, seed=seed)
        elif encoder == "convolutional":
            self.encoder = ConvolutionalEncoder(n, n_latent, seed=seed)
        else:
            self.encoder = RecurrentEncoder(n, n_latent, seed=seed)
        self.decoder = Decoder(n, n_latent + 1, hidden=hidden, seed=seed + 1)
        self.prior: CouplingFlow | None = None
        self.set_properties(properties, seed=seed + 2)

    def set_properties(self, names: Sequence[str], *, seed: int = 0) -> None:
        """Predict these properties from now on, by a new, untrained network."""
        if isinstance(names, str):
            raise TypeError(f"properties must be a list of names, got the string {names!r}; write [{names!r}]")
        self.properties = list(names)
        self.predictor = MLP(self.n_latent, [64, 64], len(names), seed=seed) if self.properties else None
        self.register_buffer("property_mean", torch.zeros(len(self.properties)))
        self.register_buffer("property_std", torch.ones(len(self.properties)))

    @property
    def config(self) -> dict[str, Any]:
        """JSON-able description that, with the tensors, rebuilds the model."""
        prior = None if self.prior is None else {"n_layers": self.prior.n_layers, "hidden": list(self.prior.hidden)}
        return {
            "tokenizer": self.tokenizer.config,
            "encoder": self.kind,
            "n_latent": self.n_latent,
            "hidden": self.hidden,
            "properties": self.properties,
            "prior": prior,
        }

    def encode_batch(self, batch: MoleculeBatch) -> tuple[Tensor, Tensor]:
        """Mean and log variance of the code of every molecule of a batch, each of shape (n, n_latent)."""
        return cast("tuple[Tensor, Tensor]", self.encoder(batch))

    def hint(self, z: Tensor, noise: Tensor) -> Tensor:
        """What the decoder reads of codes with noise.

        Parameters
        ----------
        z : Tensor, shape (n, n_latent)
            Codes, with normal noise added.
        noise : Tensor, shape (n, 1)
            Its standard deviation s.

        Returns
        -------
        Tensor, shape (n, n_latent + 1)
            The expected codes, z / (1 + s²) if they are spread like N(0, 1), and s / √(1 + s²).
        """
        total = 1 + noise**2
        return torch.cat([z / total, noise / total.sqrt()], 1)

    def dataset(
        self,
        smiles: Sequence[str],
        properties: np.ndarray | None = None,
        *,
        spellings: int = 0,
        seed: int = 0,
        progress: bool | None = None,
    ) -> MoleculeDataset:
        """Data set of canonical SMILES, as this model reads them; parameters as of `MoleculeDataset`."""
        return MoleculeDataset(
            smiles,
            self.tokenizer,
            graphs=self.kind == "graph",
            properties=properties,
            spellings=spellings,
            seed=seed,
            progress=progress,
        )

    @torch.inference_mode()
    def posterior(self, dataset: MoleculeDataset) -> tuple[Tensor, Tensor]:
        """Mean and log variance of the code of every molecule of a data set, each of shape (n, n_latent)."""
        mean = torch.empty(len(dataset), self.n_latent)
        logvar = torch.empty_like(mean)
        for indices in dataset.batches(ENCODED, None):
            mean[indices], logvar[indices] = self.encode_batch(dataset.collate(indices.tolist()))
        return mean, logvar

    def encode(self, source: object) -> np.ndarray:
        """Codes of molecules: the means of q(z|x), the same at every call.

        Parameters
        ----------
        source : Mol, str, or iterable of these
            See `as_molecules`.

        Returns
        -------
        array, shape (n, n_latent), float64

        Raises
        ------
        MoleculeError
            If something is no molecule.
        UnknownTokenError
            If a molecule has a token that the model does not know; it names both.
        """
        smiles = [canonical(mol) for mol in as_molecules(source)]
        if not smiles:
            return np.zeros((0, self.n_latent))
        return self.posterior(self.dataset(smiles))[0].double().numpy()

    def decode(self, z: np.ndarray, *, noise: float = 0.0, mask: bool = True, beam: int = 1) -> list[Chem.Mol | None]:
        """Molecules of codes: of each, token after token, the most probable string.

        Parameters
        ----------
        z : array, shape (n, n_latent)
        noise : float
            Standard deviation of what is uncertain in every coordinate of the codes. The larger it is, the more the
            decoder follows what molecules are like rather than the code; 0 takes the code at its word.
        mask : bool
            Allow only tokens after which the string can become a molecule.
        beam : int
            Width of the beam search; 1 is greedy.

        Returns
        -------
        list of rdkit.Chem.Mol or None
            None where the string is no molecule.

        Raises
        ------
        ValueError
            If the shape is wrong, a number is not finite, or the noise is negative.
        """
        return molecules(self.decode_strings(z, noise=noise, mask=mask, beam=beam))

    def decode_strings(
        self,
        z: np.ndarray,
        *,
        noise: float = 0.0,
        mask: bool = True,
        beam: int = 1,
        temperature: float = 0.0,
        seed: int = 0,
        mixed_precision: bool = False,
    ) -> list[str]:
        """The strings of which `decode` makes molecules; parameters and errors as there and of `generate`."""
        codes = np.array(z, np.float32)
        if codes.ndim != 2 or codes.shape[1] != self.n_latent:
            raise ValueError(f"z must have shape (n, {self.n_latent}), got {codes.shape}")
        if not 0 <= noise < np.inf:
            raise ValueError(f"noise must be a standard deviation, 0 or more, got {noise}")
        return generate(
            self.decoder,
            self.tokenizer,
            self.hint(torch.from_numpy(codes), torch.full((len(codes), 1), float(noise))),
            mask=mask,
            temperature=temperature,
            beam=beam,
            seed=seed,
            mixed_precision=mixed_precision,
        )

    def reconstruct(self, source: object) -> list[Chem.Mol | None]:
        """Molecules encoded and decoded again; parameters and errors as of `encode`."""
        return self.decode(self.encode(source))

    def sample_codes(self, n: int, *, noise: float = NOISE, seed: int = 0) -> np.ndarray:
        """Codes drawn from the prior, with noise, which makes them easy to draw.

        Parameters
        ----------
        n : int
        noise : float
            Standard deviation of the noise, at least 1, for that much is in the codes that the prior is fitted to.
        seed : int

        Returns
        -------
        array, shape (n, n_latent), float64
            For ``decode`` with the same noise.

        Raises
        ------
        ValueError
            If the noise is less, or not finite.
        """
        if not PRIOR_NOISE <= noise < np.inf:
            raise ValueError(f"noise must be at least {PRIOR_NOISE:g}, as in the codes of the prior, got {noise}")
        generator = torch.Generator().manual_seed(seed)
        if self.prior is None:
            codes = (1 + PRIOR_NOISE**2) ** 0.5 * torch.randn(n, self.n_latent, generator=generator)
        else:
            codes = self.prior.sample(n, generator=generator)
        more = (noise**2 - PRIOR_NOISE**2) ** 0.5
        return (codes + more * torch.randn(n, self.n_latent, generator=generator)).double().numpy()

    def sample_strings(
        self,
        n: int,
        *,
        noise: float = NOISE,
        temperature: float = TEMPERATURE,
        mask: bool = True,
        seed: int = 0,
    ) -> list[str]:
        """Strings that are decoded from codes drawn from the prior, in bfloat16 where the processor has it.

        Parameters
        ----------
        n : int
        noise : float
            In the codes; see `sample_codes`.
        temperature : float
            Of the decoder; 0 decodes greedily, so that all chance is in the code.
        mask : bool
            Allow only tokens after which the string can become a molecule.
        seed : int

        Returns
        -------
        list of n str
            The model's first try each; not necessarily molecules, nor different.

        Raises
        ------
        ValueError
            If a number is out of its range.
        """
        return self.decode_strings(
            self.sample_codes(n, noise=noise, seed=seed),
            noise=noise,
            mask=mask,
            temperature=temperature,
            seed=seed,
            mixed_precision=fast_precision() == torch.bfloat16,
        )

    def sample(
        self, n: int, *, seed: int = 0, temperature: float = TEMPERATURE, noise: float = NOISE
    ) -> list[Chem.Mol]:
        """Different molecules, decoded from codes drawn from the prior, in bfloat16 where the processor has it.

        Parameters
        ----------
        n : int
        seed : int
        temperature, noise : float
            See `sample_strings`.

        Returns
        -------
        list of n rdkit.Chem.Mol
            No two with one canonical SMILES.

        Raises
        ------
        ValueError
            If a number is out of its range, or the model does not know so many molecules.
        """
        if n < 0:
            raise ValueError(f"n must be 0 or more, got {n}")
        found: dict[str, Chem.Mol] = {}
        for attempt in range(MOST_ROUNDS):
            missing = n - len(found)
            if missing <= 0:
                break
            start = seed + 1_000_003 * attempt
            strings = self.sample_strings(missing + missing // 20 + 8, noise=noise, temperature=temperature, seed=start)
            for smiles, mol in different_molecules(strings).items():
                found.setdefault(smiles, mol)
        if len(found) < n:
            raise ValueError(
                f"the model gave only {len(found)} different molecules in {MOST_ROUNDS} rounds where {n} were asked "
                "for; ask for fewer, raise the temperature, or train longer"
            )
        return list(found.values())[:n]

    @torch.inference_mode()
    def predict(self, source: object) -> pandas.DataFrame:
        """Properties of molecules, from their codes.

        Parameters
        ----------
        source : Mol, str, or iterable of these

        Returns
        -------
        pandas.DataFrame, shape (n, n_properties)
            Indexed by canonical SMILES.

        Raises
        ------
        ValueError
            If the model predicts no properties, and what `encode` raises.
        """
        import pandas

        if self.predictor is None:
            raise ValueError("this model predicts no properties; train it with some (fit(path, properties=[…]))")
        smiles = [canonical(mol) for mol in as_molecules(source)]
        return pandas.DataFrame(
            self.predict_codes(self.encode(smiles)), index=pandas.Index(smiles, name="smiles"), columns=self.properties
        )

    @torch.inference_mode()
    def predict_codes(self, z: np.ndarray) -> np.ndarray:
        """Properties at codes.

        Parameters
        ----------
        z : array, shape (n, n_latent)

        Returns
        -------
        array, shape (n, n_properties), float64
        """
        if self.predictor is None:
            raise ValueError("this model predicts no properties; train it with some (fit(path, properties=[…]))")
        scaled = self.predictor(torch.as_tensor(np.asarray(z), dtype=torch.float32))
        result = scaled * cast(Tensor, self.property_std) + cast(Tensor, self.property_mean)
        return result.double().numpy()

    near = exploration.near
    interpolate = exploration.interpolate
    optimize = optimisation.optimize

    def fit(
        self,
        path: str | os.PathLike[str],
        *,
        smiles: str | None = None,
        properties: Sequence[str] = (),
        minutes: float = 20.0,
        beta: float = 0.1,
        learning_rate: float = 5e-4,
        valid_fraction: float | None = None,
        directory: str | os.PathLike[str] | None = None,
        resume: bool = False,
        seed: int = 0,
        progress: bool | None = None,
    ) -> MoleculeVAE:
        """Train the model further on a table of molecules, and fit its prior anew; `train` trains one from the start.

        Parameters
        ----------
        path : path-like
            File for `read_molecules`. Molecules with tokens that the model does not know are left out, and counted in
            ``metadata["training"]``.
        smiles : str, optional
            Column of the SMILES.
        properties : sequence of str
            Columns of numbers to predict from the code. Names that are not just those of the model give it a new
            predictor; without any it keeps the one it has.
        minutes, beta, learning_rate, valid_fraction, directory, resume, seed, progress
            As in `train`.

        Returns
        -------
        MoleculeVAE
            This one.

        Raises
        ------
        ValueError
            If the file is none of molecules, or too few are left; see `read_molecules` and `train`.
        """
        from molml.molecules.data import read_molecules
        from molml.molecules.fitting import train

        table = read_molecules(path, smiles=smiles, properties=properties, progress=progress)
        return train(
            table.smiles,
            minutes=minutes,
            properties={name: table.properties[name].to_numpy() for name in properties},
            beta=beta,
            learning_rate=learning_rate,
            valid_fraction=valid_fraction,
            model=self,
            directory=directory,
            resume=resume,
            seed=seed,
            progress=progress,
        )

    def save(
        self, path: str | os.PathLike[str], metadata: Mapping[str, Any] | None = None, *, half: bool = False
    ) -> None:
        """Write to a model file; ``molml.load`` reads it.

        Parameters
        ----------
        path : path-like
        metadata : mapping, optional
            JSON-able facts to add.
        half : bool
            Store numbers with 16 bits, which halves the file and changes weights by a 2000th at most.
        """
        tensors = {
            name: tensor.half() if half and tensor.is_floating_point() else tensor
            for name, tensor in self.state_dict().items()
        }
        save_container(path, "MoleculeVAE", self.config, tensors, {**self.metadata, **(metadata or {})})

    @classmethod
    def from_container(cls, container: Container) -> MoleculeVAE:
        """Rebuild from a model file's content.

        Raises
        ------
        ModelFileError
            If the file does not hold a whole model.
        """
        config = container.config
        try:
            model = cls(
                Tokenizer.from_config(config["tokenizer"]),
                encoder=config["encoder"],
                n_latent=config["n_latent"],
                hidden=config["hidden"],
                properties=config["properties"],
                metadata=container.metadata,
            )
            if config["prior"] is not None:
                model.prior = CouplingFlow(model.n_latent, **config["prior"])
            model.load_state_dict(container.tensors)
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise ModelFileError(f"the file does not hold a whole MoleculeVAE: {error}; get the file again") from error
        return model.eval()
