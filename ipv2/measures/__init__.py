"""What a denoised slice is worth: metrics, the outline, noise spectra."""
