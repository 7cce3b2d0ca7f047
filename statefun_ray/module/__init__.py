"""What a ``module.yaml`` says about an application, as plain data.

Empty on purpose: import ``model`` for the words, ``read`` to get them from text, ``load`` from files.
All but ``load`` is pure.
"""
