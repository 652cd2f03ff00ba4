-- When the token was issued whose groups a user has, Unix milliseconds; 0 before the first. Groups of an older token, or of another
-- one of the same login, are not news.
ALTER TABLE users ADD COLUMN groups_at BIGINT NOT NULL DEFAULT 0;
