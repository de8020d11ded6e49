"""A trained network applied to whole slices."""
