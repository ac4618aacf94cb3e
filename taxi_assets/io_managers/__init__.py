"""One IO manager a storage target: days in, days out, no business rule."""
