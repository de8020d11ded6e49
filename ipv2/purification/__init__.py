"""Image purification: the equations of IPv1 and IPv2, and the masks they stand on."""
