"""What a ``module.yaml`` says about an application, as plain data. Pure: text in, values out.

Empty on purpose: import ``model`` for the words, ``read`` to get them from a file.
"""
