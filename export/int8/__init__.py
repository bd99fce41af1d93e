"""Precision int8: layers that compute in 8-bit integers, chosen at export by what each of them costs on speech."""
