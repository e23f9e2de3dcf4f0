"""The training texts and the simulated shop that ship with the project; README.md says what each file is."""
