"""Sets of images from folders, archives and arrays, and their scores."""
