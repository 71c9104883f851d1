"""One file for each thing that can be wrong; `registry` lists them."""
