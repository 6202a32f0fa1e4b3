"""Tables: typed columns, files of tables, and queries over them."""
