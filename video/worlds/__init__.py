"""Videos that are drawn, with exact ground truth: no file, no download."""
