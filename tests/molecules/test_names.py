import pytest
from rdkit import Chem
from rdkit.Chem import rdCIPLabeler
from rdkit.Chem.rdMolDescriptors import CalcMolFormula

from molml.molecules.data import as_molecules, canonical
from molml.molecules.names import NAMES

# name, sum formula, and the CIP labels of the substance: of its atoms in alphabetical order, then of its double bonds
PUBLISHED = """
water                   H2O
ammonia                 H3N
methane                 CH4
ethane                  C2H6
propane                 C3H8
butane                  C4H10
octane                  C8H18
isooctane               C8H18
ethylene                C2H4
acetylene               C2H2
butadiene               C4H6
isoprene                C5H8
cyclohexane             C6H12
benzene                 C6H6
toluene                 C7H8
styrene                 C8H8
naphthalene             C10H8
anthracene              C14H10
pyrene                  C16H10
azulene                 C10H8
azobenzene              C12H10N2        E
adamantane              C10H16
cubane                  C8H8
methanol                CH4O
ethanol                 C2H6O
isopropanol             C3H8O
glycerol                C3H8O3
ethylene glycol         C2H6O2
phenol                  C6H6O
diethyl ether           C4H10O
tetrahydrofuran         C4H8O
dioxane                 C4H8O2
formaldehyde            CH2O
acetaldehyde            C2H4O
acetone                 C3H6O
formic acid             CH2O2
acetic acid             C2H4O2
oxalic acid             C2H2O4
lactic acid             C3H6O3
citric acid             C6H8O7
benzoic acid            C7H6O2
salicylic acid          C7H6O3
oleic acid              C18H34O2        Z
stearic acid            C18H36O2
ethyl acetate           C4H8O2
dimethylformamide       C3H7NO
dimethyl sulfoxide      C2H6OS
acetonitrile            C2H3N
chloroform              CHCl3
dichloromethane         CH2Cl2
urea                    CH4N2O
aniline                 C6H7N
nitrobenzene            C6H5NO2
trinitrotoluene         C7H5N3O6
pyridine                C5H5N
pyrrole                 C4H5N
furan                   C4H4O
thiophene               C4H4S
imidazole               C3H4N2
indole                  C8H7N
quinoline               C9H7N
adenine                 C5H5N5
guanine                 C5H5N5O
cytosine                C4H5N3O
thymine                 C5H6N2O2
uracil                  C4H4N2O2
adenosine               C10H13N5O4      RRRS
glycine                 C2H5NO2
alanine                 C3H7NO2         S
phenylalanine           C9H11NO2        S
tryptophan              C11H12N2O2      S
tyrosine                C9H11NO3        S
cysteine                C3H7NO2S        R
glutamic acid           C5H9NO4         S
glucose                 C6H12O6         RRSS
sucrose                 C12H22O11       RRRRSSSSS
vitamin c               C6H8O6          RS
vanillin                C8H8O3
menthol                 C10H20O         RRS
limonene                C10H16          R
camphor                 C10H16O         RR
cinnamaldehyde          C9H8O           E
capsaicin               C18H27NO3       E
eugenol                 C10H12O2
coumarin                C9H6O2
saccharin               C7H5NO3S
aspartame               C14H18N2O5      SS
caffeine                C8H10N4O2
theobromine             C7H8N4O2
theophylline            C7H8N4O2
nicotine                C10H14N2        S
dopamine                C8H11NO2
serotonin               C10H12N2O
melatonin               C13H16N2O2
histamine               C5H9N3
adrenaline              C9H13NO3        R
acetylcholine           C7H16NO2+
cholesterol             C27H46O         RRRRSSSS
testosterone            C19H28O2        RRSSSS
estradiol               C18H24O2        RSSSS
aspirin                 C9H8O4
ibuprofen               C13H18O2
paracetamol             C8H9NO2
naproxen                C14H14O3        S
diclofenac              C14H11Cl2NO2
ketoprofen              C16H14O3
lidocaine               C14H22N2O
procaine                C13H20N2O2
benzocaine              C9H11NO2
morphine                C17H19NO3       RRRSS
codeine                 C18H21NO3       RRRSS
metformin               C4H11N5
penicillin g            C16H18N2O4S     RRS
amoxicillin             C16H19N3O5S     RRRS
ciprofloxacin           C17H18FN3O3
sulfanilamide           C6H8N2O2S
isoniazid               C6H7N3O
diazepam                C16H13ClN2O
fluoxetine              C17H18F3NO
sildenafil              C22H30N6O4S
imatinib                C29H31N7O
warfarin                C19H16O4
omeprazole              C17H19N3O3S
loratadine              C22H23ClN2O2
atenolol                C14H22N2O3
propranolol             C16H21NO2
salbutamol              C13H21NO3
celecoxib               C17H14F3N3O2S
"""
ROWS = [(line[:24].strip(), line[24:40].strip(), line[40:].strip()) for line in PUBLISHED.strip().splitlines()]


def labels(mol):
    rdCIPLabeler.AssignCIPLabels(mol)
    atoms = sorted(atom.GetProp("_CIPCode") for atom in mol.GetAtoms() if atom.HasProp("_CIPCode"))
    return "".join(atoms + [bond.GetProp("_CIPCode") for bond in mol.GetBonds() if bond.HasProp("_CIPCode")])


@pytest.mark.parametrize("name, formula, configuration", ROWS)
def test_the_molecule_is_the_one_of_that_name(name, formula, configuration):
    [mol] = as_molecules(name)
    assert (CalcMolFormula(mol), labels(mol)) == (formula, configuration)


def test_every_molecule_has_been_checked():
    checked = {canonical(as_molecules(name)[0]) for name, _, _ in ROWS}
    assert {canonical(mol) for mol in as_molecules(list(NAMES))} == checked
    assert len(checked) == len(ROWS)


def test_the_check_sees_the_wrong_enantiomer():
    mol = Chem.MolFromSmiles(NAMES["nicotine"].replace("@", "@@"))
    assert labels(mol) == "R"


@pytest.mark.parametrize("name", NAMES)
def test_no_name_is_a_smiles_and_every_name_is_in_lower_case(name):
    assert name == name.lower()
    assert Chem.MolFromSmiles(name) is None
