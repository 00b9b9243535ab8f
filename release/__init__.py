"""Releases: from one commit, wheel, sdist, image and bills of materials, the same bytes each time, with provenance."""
