"""A run on one page: `parts` says what it consists of, `page` renders it."""
