"""`make bench`: what polls, scrapes and exports cost, beside the stock Python exporter and Go's
promhttp.
"""
