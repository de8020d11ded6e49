"""Image purification and denoising of real ultra-low-dose lung CT (IPv2)."""
