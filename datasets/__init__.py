"""Data sets of molml, installed as `molml._datasets`; each folder holds a card, a recipe and the files themselves."""
