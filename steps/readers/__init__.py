"""Document readers: files of many kinds to text, in processes of their own."""
