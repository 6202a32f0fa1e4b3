-- The ledger has `paddock`, which the image makes by itself. Prefect's server has this one:
CREATE DATABASE prefect OWNER paddock;
