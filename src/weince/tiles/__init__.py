"""The tiles: loss and gradient row tile by row tile, and the operator that autograd and compilers see."""
