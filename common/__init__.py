"""Code that both packages share and that imports neither."""
