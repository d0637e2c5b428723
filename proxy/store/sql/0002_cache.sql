-- What is known of kept answers; they themselves live in the workers' memory. A line for each request that was kept.
CREATE TABLE ai_cache (
    cache_key TEXT PRIMARY KEY,
    response_data TEXT,
    model_used TEXT NOT NULL,
    created_at TEXT NOT NULL,
    expires_at TEXT NOT NULL,
    hit_count INTEGER NOT NULL
);
CREATE INDEX ai_cache_expires_at ON ai_cache (expires_at);

-- How many hits of each worker's entry are in hit_count already, so that each is counted once.
CREATE TABLE ai_cache_told (
    cache_key TEXT NOT NULL,
    entry TEXT NOT NULL,
    hit_count INTEGER NOT NULL,
    expires_at TEXT NOT NULL,
    PRIMARY KEY (cache_key, entry)
) WITHOUT ROWID;
CREATE INDEX ai_cache_told_expires_at ON ai_cache_told (expires_at);
