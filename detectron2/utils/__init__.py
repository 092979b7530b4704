"""Helpers that know nothing of models, data sets or configs. Import the module that you need from here."""
