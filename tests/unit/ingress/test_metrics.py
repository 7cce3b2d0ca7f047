from __future__ import annotations

from statefun_ingress.metrics import metrics_text


def test_the_page_has_every_row_under_its_family() -> None:
    histogram = [
        ("x_ms_bucket", 'le="1"', 2.0),
        ("x_ms_bucket", 'le="+Inf"', 3.0),
        ("x_ms_sum", "", 4.5),
        ("x_ms_count", "", 3.0),
    ]
    text = metrics_text([("lag", "", 7)], {1: [("in_total", 'function="a/b"', 5)], 0: histogram})
    assert text == (
        "# TYPE in_total counter\n"
        'in_total{worker="1",function="a/b"} 5\n'
        "# TYPE lag gauge\n"
        "lag 7\n"
        "# TYPE x_ms histogram\n"
        'x_ms_bucket{worker="0",le="1"} 2\n'
        'x_ms_bucket{worker="0",le="+Inf"} 3\n'
        'x_ms_count{worker="0"} 3\n'
        'x_ms_sum{worker="0"} 4.5\n'
    )
