"""The files of a release, built without any credentials: ``make release-check``."""
