"""The function as a web service: every path takes invocations, ``/healthz`` is for the kubelet.

uvicorn examples.kubernetes.service:app --port 8000
"""

from examples.kubernetes.functions import functions
from statefun_sdk.asgi import asgi_app

app = asgi_app(functions)
