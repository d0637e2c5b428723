-- One row for each request. No NOT NULL and no CHECK: a row that breaks one would be lost, or hold up all behind it.
-- One index only: each further one costs every row.
CREATE TABLE ai_usage_logs (
    id INTEGER PRIMARY KEY,
    request_id TEXT,
    api_key_id TEXT,
    tenant_id TEXT,
    user_id TEXT,
    tier TEXT,
    endpoint TEXT,
    model_used TEXT,
    backend TEXT,
    prompt_tokens INTEGER,
    completion_tokens INTEGER,
    cached_tokens INTEGER,
    reasoning_tokens INTEGER,
    total_tokens INTEGER,
    usage_estimated INTEGER,
    cost_usd REAL,
    cost_nano_usd INTEGER,
    llm_request INTEGER,
    response_cached INTEGER,
    response_time_ms REAL,
    ttft_ms REAL,
    status_code INTEGER,
    outcome TEXT,
    error_message TEXT,
    created_at TEXT
);
CREATE INDEX ai_usage_logs_created_at ON ai_usage_logs (created_at);

CREATE VIEW llm_usage AS
SELECT
    user_id,
    tenant_id,
    api_key_id,
    model_used AS model,
    endpoint,
    backend,
    prompt_tokens,
    completion_tokens,
    total_tokens,
    cost_usd,
    response_cached AS cached,
    status_code,
    outcome,
    response_time_ms,
    ttft_ms,
    created_at
FROM ai_usage_logs;

CREATE TABLE ai_api_keys (
    id TEXT PRIMARY KEY,
    tenant_id TEXT NOT NULL,
    user_id TEXT NOT NULL,
    key_name TEXT NOT NULL,
    key_hash TEXT NOT NULL UNIQUE,
    tier TEXT NOT NULL,
    quota_requests_per_hour INTEGER,
    is_active INTEGER NOT NULL DEFAULT 1,
    created_at TEXT NOT NULL,
    expires_at TEXT,
    last_used_at TEXT,
    previous_key_hash TEXT UNIQUE,
    previous_valid_until TEXT,
    revoked_at TEXT,
    revision INTEGER NOT NULL UNIQUE
);

CREATE TABLE budget_alerts (
    scope TEXT NOT NULL,
    scope_id TEXT NOT NULL,
    measure TEXT NOT NULL,
    "window" TEXT NOT NULL,
    window_start TEXT NOT NULL,
    percent INTEGER NOT NULL,
    limit_nano_usd INTEGER NOT NULL,
    spent_nano_usd INTEGER NOT NULL,
    sent_at TEXT,
    UNIQUE (scope, scope_id, measure, "window", window_start, percent)
);
