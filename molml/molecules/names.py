"""Everyday molecules by name, written by hand: for examples, figures and the command line."""

__all__ = ["NAMES"]

_TABLE = """
water                O
ammonia              N
methane              C
ethane               CC
propane              CCC
butane               CCCC
octane               CCCCCCCC
isooctane            CC(C)CC(C)(C)C
ethylene             C=C
acetylene            C#C
butadiene            C=CC=C
isoprene             CC(=C)C=C
cyclohexane          C1CCCCC1
benzene              c1ccccc1
toluene              Cc1ccccc1
styrene              C=Cc1ccccc1
naphthalene          c1ccc2ccccc2c1
anthracene           c1ccc2cc3ccccc3cc2c1
pyrene               c1cc2ccc3cccc4ccc(c1)c2c34
azulene              c1ccc2cccc2cc1
azobenzene           c1ccc(cc1)/N=N/c1ccccc1
adamantane           C1C2CC3CC1CC(C2)C3
cubane               C12C3C4C1C5C2C3C45
methanol             CO
ethanol              CCO
isopropanol          CC(C)O
glycerol             OCC(O)CO
ethylene glycol      OCCO
phenol               Oc1ccccc1
diethyl ether        CCOCC
tetrahydrofuran      C1CCOC1
dioxane              C1COCCO1
formaldehyde         C=O
acetaldehyde         CC=O
acetone              CC(C)=O
formic acid          OC=O
acetic acid          CC(O)=O
oxalic acid          OC(=O)C(O)=O
lactic acid          CC(O)C(O)=O
citric acid          OC(=O)CC(O)(CC(O)=O)C(O)=O
benzoic acid         OC(=O)c1ccccc1
salicylic acid       OC(=O)c1ccccc1O
oleic acid           CCCCCCCC/C=C\\CCCCCCCC(O)=O
stearic acid         CCCCCCCCCCCCCCCCCC(O)=O
ethyl acetate        CCOC(C)=O
dimethylformamide    CN(C)C=O
dimethyl sulfoxide   CS(C)=O
acetonitrile         CC#N
chloroform           ClC(Cl)Cl
dichloromethane      ClCCl
urea                 NC(N)=O
aniline              Nc1ccccc1
nitrobenzene         [O-][N+](=O)c1ccccc1
trinitrotoluene      Cc1c(cc(cc1[N+]([O-])=O)[N+]([O-])=O)[N+]([O-])=O
pyridine             c1ccncc1
pyrrole              c1cc[nH]c1
furan                c1ccoc1
thiophene            c1ccsc1
imidazole            c1c[nH]cn1
indole               c1ccc2[nH]ccc2c1
quinoline            c1ccc2ncccc2c1
adenine              Nc1ncnc2[nH]cnc12
guanine              Nc1nc2[nH]cnc2c(=O)[nH]1
cytosine             Nc1cc[nH]c(=O)n1
thymine              Cc1c[nH]c(=O)[nH]c1=O
uracil               O=c1cc[nH]c(=O)[nH]1
adenosine            Nc1ncnc2n(cnc12)[C@@H]1O[C@H](CO)[C@@H](O)[C@H]1O
glycine              NCC(O)=O
alanine              C[C@H](N)C(O)=O
phenylalanine        N[C@@H](Cc1ccccc1)C(O)=O
tryptophan           N[C@@H](Cc1c[nH]c2ccccc12)C(O)=O
tyrosine             N[C@@H](Cc1ccc(O)cc1)C(O)=O
cysteine             N[C@@H](CS)C(O)=O
glutamic acid        N[C@@H](CCC(O)=O)C(O)=O
glucose              OC[C@H]1OC(O)[C@H](O)[C@@H](O)[C@@H]1O
sucrose              OC[C@H]1O[C@H](O[C@]2(CO)O[C@H](CO)[C@@H](O)[C@@H]2O)[C@H](O)[C@@H](O)[C@@H]1O
vitamin c            OC[C@H](O)[C@H]1OC(=O)C(O)=C1O
vanillin             COc1cc(C=O)ccc1O
menthol              CC(C)[C@@H]1CC[C@@H](C)C[C@H]1O
limonene             CC1=CC[C@@H](CC1)C(C)=C
camphor              CC1(C)[C@@H]2CC[C@@]1(C)C(=O)C2
cinnamaldehyde       O=C/C=C/c1ccccc1
capsaicin            COc1cc(CNC(=O)CCCC/C=C/C(C)C)ccc1O
eugenol              COc1cc(CC=C)ccc1O
coumarin             O=c1ccc2ccccc2o1
saccharin            O=C1NS(=O)(=O)c2ccccc12
aspartame            COC(=O)[C@H](Cc1ccccc1)NC(=O)[C@@H](N)CC(O)=O
caffeine             Cn1cnc2n(C)c(=O)n(C)c(=O)c12
theobromine          Cn1cnc2[nH]c(=O)n(C)c(=O)c12
theophylline         Cn1c(=O)c2[nH]cnc2n(C)c1=O
nicotine             CN1CCC[C@H]1c1cccnc1
dopamine             NCCc1ccc(O)c(O)c1
serotonin            NCCc1c[nH]c2ccc(O)cc12
melatonin            COc1ccc2[nH]cc(CCNC(C)=O)c2c1
histamine            NCCc1c[nH]cn1
adrenaline           CNC[C@H](O)c1ccc(O)c(O)c1
acetylcholine        CC(=O)OCC[N+](C)(C)C
cholesterol          C[C@H](CCCC(C)C)[C@H]1CC[C@@H]2[C@]1(C)CC[C@H]1[C@H]2CC=C2C[C@@H](O)CC[C@]12C
testosterone         C[C@]12CC[C@H]3[C@@H](CCC4=CC(=O)CC[C@]34C)[C@@H]1CC[C@@H]2O
estradiol            C[C@]12CC[C@H]3[C@@H](CCc4cc(O)ccc34)[C@@H]1CC[C@@H]2O
aspirin              CC(=O)Oc1ccccc1C(O)=O
ibuprofen            CC(C)Cc1ccc(cc1)C(C)C(O)=O
paracetamol          CC(=O)Nc1ccc(O)cc1
naproxen             COc1ccc2cc(ccc2c1)[C@H](C)C(O)=O
diclofenac           OC(=O)Cc1ccccc1Nc1c(Cl)cccc1Cl
ketoprofen           CC(C(O)=O)c1cccc(c1)C(=O)c1ccccc1
lidocaine            CCN(CC)CC(=O)Nc1c(C)cccc1C
procaine             CCN(CC)CCOC(=O)c1ccc(N)cc1
benzocaine           CCOC(=O)c1ccc(N)cc1
morphine             CN1CC[C@]23c4c5ccc(O)c4O[C@H]2[C@@H](O)C=C[C@H]3[C@H]1C5
codeine              COc1ccc2C[C@@H]3[C@@H]4C=C[C@H](O)[C@@H]5Oc1c2[C@]45CCN3C
metformin            CN(C)C(=N)NC(N)=N
penicillin g         CC1(C)S[C@@H]2[C@H](NC(=O)Cc3ccccc3)C(=O)N2[C@H]1C(O)=O
amoxicillin          CC1(C)S[C@@H]2[C@H](NC(=O)[C@H](N)c3ccc(O)cc3)C(=O)N2[C@H]1C(O)=O
ciprofloxacin        OC(=O)c1cn(C2CC2)c2cc(N3CCNCC3)c(F)cc2c1=O
sulfanilamide        Nc1ccc(cc1)S(N)(=O)=O
isoniazid            NNC(=O)c1ccncc1
diazepam             CN1c2ccc(Cl)cc2C(=NCC1=O)c1ccccc1
fluoxetine           CNCCC(Oc1ccc(cc1)C(F)(F)F)c1ccccc1
sildenafil           CCCc1nn(C)c2c1[nH]c(nc2=O)-c1cc(ccc1OCC)S(=O)(=O)N1CCN(C)CC1
imatinib             Cc1ccc(NC(=O)c2ccc(CN3CCN(C)CC3)cc2)cc1Nc1nccc(n1)-c1cccnc1
warfarin             CC(=O)CC(c1ccccc1)c1c(O)c2ccccc2oc1=O
omeprazole           COc1ccc2[nH]c(nc2c1)S(=O)Cc1ncc(C)c(OC)c1C
loratadine           CCOC(=O)N1CCC(CC1)=C1c2ccc(Cl)cc2CCc2cccnc12
atenolol             CC(C)NCC(O)COc1ccc(CC(N)=O)cc1
propranolol          CC(C)NCC(O)COc1cccc2ccccc12
salbutamol           CC(C)(C)NCC(O)c1ccc(O)c(CO)c1
celecoxib            Cc1ccc(cc1)-c1cc(nn1-c1ccc(cc1)S(N)(=O)=O)C(F)(F)F
"""

# other names of the same molecules
_ALSO = {
    "acetaminophen": "paracetamol",
    "acetylsalicylic acid": "aspirin",
    "albuterol": "salbutamol",
    "ascorbic acid": "vitamin c",
    "epinephrine": "adrenaline",
    "ethene": "ethylene",
    "ethyne": "acetylene",
    "tnt": "trinitrotoluene",
}


def _read(table: str) -> dict[str, str]:
    names = {}
    for line in table.strip().splitlines():
        name, smiles = line.rsplit(maxsplit=1)
        names[name] = smiles
    return names | {other: names[name] for other, name in _ALSO.items()}


#: Name in lower case → SMILES. The configuration is that of the substance found in nature or sold, where it is one.
NAMES: dict[str, str] = _read(_TABLE)
