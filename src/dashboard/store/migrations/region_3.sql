-- The documents that a family's tokens open, as the first one's request named them; NULL is all of the app's.
ALTER TABLE refresh_families ADD COLUMN documents TEXT;
