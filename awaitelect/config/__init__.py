"""The settings: what they are (model), where they come from (sources), how they are shown (check, document).

Boundary: nothing here talks to a cluster or starts anything. All that can be wrong leaves as one ConfigError.
"""
