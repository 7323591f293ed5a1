"""Coding matrices over GF(2^8), encoders and decoders made from them, and repair of lost rows."""
