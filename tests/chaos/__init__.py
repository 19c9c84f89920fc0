"""A fleet of real processes under load, provoked in every way that is known to lose or double work elsewhere.

``campaign`` runs rounds: submit, provoke in the middle of it, wait until every task has ended, ask the ``oracle``.
``make chaos`` does so for minutes with a seed that it prints; ``make test`` runs the short version.
"""
