"""A step's answer for one item: the labels that it may be, its checks, where its values stand."""
