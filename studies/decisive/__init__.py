"""The decisive study: BFPO and its rivals in worlds where labels err, both answers are unsafe, or harm has prices."""
