"""Quality measures of denoised slices: metrics, lung outline, noise spectra."""
