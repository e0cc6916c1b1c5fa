"""lmms-eval's generation tasks: their files, their code and their pictures."""
