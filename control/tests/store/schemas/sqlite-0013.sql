PRAGMA foreign_keys=OFF;
BEGIN TRANSACTION;
CREATE TABLE _sqlx_migrations (
    version BIGINT PRIMARY KEY,
    description TEXT NOT NULL,
    installed_on TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP,
    success BOOLEAN NOT NULL,
    checksum BLOB NOT NULL,
    execution_time BIGINT NOT NULL
);
INSERT INTO _sqlx_migrations VALUES(1,'account','2026-11-22 13:51:08',1,X'6b474a5aeecfecddf00c24051b7f78030beec4a923529dd1246b3ff71ff534c03853f944b80a80c90638aae88bb88f0b',28263121);
INSERT INTO _sqlx_migrations VALUES(2,'replicas','2026-11-22 14:47:14',1,X'74e6c5521945078d1c268df8a1aa1374511a7f34c48111f944d5de1acb504e49a137bf7c655c3b2dd063adea243ce004',33482887);
INSERT INTO _sqlx_migrations VALUES(3,'audit chain','2026-11-22 19:15:08',1,X'25fe390b92dfcc1df5ded5fdd8a6fdf8f86d9f4418d09fca6e3330cb7e4ab704da1dafcc27dea4c1fc0293b4d9161585',5572597);
INSERT INTO _sqlx_migrations VALUES(4,'routes dns','2026-11-22 20:42:42',1,X'9d6c546994de5d6b90c4b47dcb9e5d4cf1ea5a661cfbc44f30488a7d02ab0e56ebb34ea99c706c7191214b3a2f9b8c6f',3000000);
INSERT INTO _sqlx_migrations VALUES(5,'answers','2026-11-22 20:58:15',1,X'a11668fe50d08a44758344c7f2d95a4c2bb2b8d9bca8203563a543ab360db6fdbb27ad81c99ba05247bd329716abe49c',1000000);
INSERT INTO _sqlx_migrations VALUES(6,'posture','2026-11-22 21:17:26',1,X'22036c64dceab5be33afa080bb1cd12ac6d70ff55e8b22a3939c5008f461b7a80d2d882168b96b8a2b2f04a1b47c1bd3',5000000);
INSERT INTO _sqlx_migrations VALUES(7,'policy revisions','2026-11-22 20:00:00',1,X'5829bd7e352001cddd3cafc228d6376906bbcc4c5f24f80d68d71783d6b284903635054518d796722d0a5147370c6755',1000000);
INSERT INTO _sqlx_migrations VALUES(8,'identity','2026-11-22 20:00:00',1,X'cdd7f749bec3c971195fd592260a562ae52f99425db409dc314cb5ce2305be962d03bbbd42c0cfe6b918cf6b8bb34c4c',1000000);
INSERT INTO _sqlx_migrations VALUES(9,'groups at','2026-11-22 23:30:14',1,X'9b9f922f89c3aba417dd35c79061babd923e5820d33e6b1e2106f310ecd525a2a39ac4f7cf4e03d6f2b48a266f1b7173',5000000);
INSERT INTO _sqlx_migrations VALUES(10,'touched','2026-11-22 20:00:00',1,X'4126568a0207947ad65df489db338af7b9ca44c4f75938d1b81377f2f42e156c71365ccc7dfe0673e47bec0c6123fca0',1000000);
INSERT INTO _sqlx_migrations VALUES(11,'local users','2026-11-22 20:00:00',1,X'438bf5551a3b99a91fb5cb2ca16ba3281f5bfd741122a0757dd6c2f3b21ed3a1946638f4e36992f1056de3cfc4475f8d',1000000);
INSERT INTO _sqlx_migrations VALUES(12,'join keys','2026-11-22 20:00:00',1,X'b14c03fff4725b0eb48cfac841b9932f7dd20233ee6254e9e731005c8d4cae2aa610f87fec7edb537e9a6ea9a155db2d',1000000);
INSERT INTO _sqlx_migrations VALUES(13,'session facts','2026-11-22 20:00:00',1,X'bec63d4f700df48b1b8d6e458c0ae493270a1b1aaad53f8affdfa77571bd37651c1deb512091b20e84584d784f117c0c',1000000);
CREATE TABLE account (
    only_one   INTEGER PRIMARY KEY CHECK (only_one = 1),
    id         TEXT    NOT NULL,
    domain     TEXT    NOT NULL,
    created_at INTEGER NOT NULL,
    created_by TEXT    NOT NULL,
    revision   INTEGER NOT NULL,
    settings   TEXT    NOT NULL
, authority TEXT NOT NULL DEFAULT '') STRICT;
INSERT INTO account VALUES(1,'dc1f6j3orj559jhqq3a0','',1795355468640,'dc1f6j3orj559jhqq3ag',9,'{"peer_login_expiration_enabled":true,"peer_login_expiration":86400,"peer_inactivity_expiration_enabled":false,"peer_inactivity_expiration":600,"regular_users_view_blocked":true,"groups_propagation_enabled":true,"jwt_groups_enabled":false,"jwt_groups_claim_name":"","jwt_allow_groups":[],"routing_peer_dns_resolution_enabled":true,"dns_domain":"","network_range":"100.77.0.0/16","network_range_v6":"fdee:778f:1dd2:3110::/64","peer_expose_enabled":false,"peer_expose_groups":[],"extra":{"peer_approval_enabled":false,"user_approval_required":false,"network_traffic_logs_enabled":true,"network_traffic_logs_groups":[],"network_traffic_packet_counter_enabled":true},"lazy_connection_enabled":false,"auto_update_version":"disabled","auto_update_always":false,"ipv6_enabled_groups":["dc1f6j3orj559jhqq3b0"]}','1bcfe708ef45dc74848069108951b32f58e3f4cd182536602854f7fa05e4a1c2');
CREATE TABLE groups (
    id       TEXT    PRIMARY KEY,
    name     TEXT    NOT NULL UNIQUE,
    issued   TEXT    NOT NULL,
    built_in INTEGER NOT NULL DEFAULT 0
) STRICT;
INSERT INTO "groups" VALUES('dc1f6j3orj559jhqq3b0','All','api',1);
INSERT INTO "groups" VALUES('dc1f6j3orj559jhqq3d0','ops','api',0);
CREATE TABLE users (
    id               TEXT    PRIMARY KEY,
    name             TEXT    NOT NULL,
    email            TEXT    NOT NULL,
    role             TEXT    NOT NULL,
    is_service_user  INTEGER NOT NULL,
    blocked          INTEGER NOT NULL,
    invited          INTEGER NOT NULL,
    created_at       INTEGER NOT NULL,
    last_login       INTEGER
, issuer TEXT NOT NULL DEFAULT '', subject TEXT NOT NULL DEFAULT '', pending_approval INTEGER NOT NULL DEFAULT 0, groups_at INTEGER NOT NULL DEFAULT 0) STRICT;
INSERT INTO users VALUES('dc1f6j3orj559jhqq3ag','bootstrap','','owner',1,0,0,1795355468640,NULL,'','',0,0);
CREATE TABLE user_groups (
    user_id  TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    group_id TEXT NOT NULL REFERENCES groups (id),
    PRIMARY KEY (user_id, group_id)
) STRICT, WITHOUT ROWID;
CREATE TABLE tokens (
    id         TEXT    PRIMARY KEY,
    user_id    TEXT    NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    name       TEXT    NOT NULL,
    hash       BLOB    NOT NULL UNIQUE,
    created_by TEXT    NOT NULL,
    created_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    last_used  INTEGER
) STRICT;
INSERT INTO tokens VALUES('dc1f6j3orj559jhqq3bg','dc1f6j3orj559jhqq3ag','bootstrap',X'869cf2b98ce235e2ecaa8703c2cdee502ed889afded8f1faa3458538e1936173','dc1f6j3orj559jhqq3ag',1795355468640,1826891468640,1795355468981);
CREATE TABLE setup_keys (
    id                     TEXT    PRIMARY KEY,
    name                   TEXT    NOT NULL,
    hash                   BLOB    NOT NULL UNIQUE,
    masked                 TEXT    NOT NULL,
    reusable               INTEGER NOT NULL,
    created_at             INTEGER NOT NULL,
    updated_at             INTEGER NOT NULL,
    expires_at             INTEGER,
    revoked                INTEGER NOT NULL,
    used_times             INTEGER NOT NULL,
    last_used              INTEGER,
    usage_limit            INTEGER NOT NULL,
    ephemeral              INTEGER NOT NULL,
    allow_extra_dns_labels INTEGER NOT NULL
) STRICT;
INSERT INTO setup_keys VALUES('dc1f6jborj559jhqq3dg','site',X'08729e1f8755da10bb6eff088af5e5a1718760a70f0dcde932698d7af95d28e4','C03CF*******************************',1,1795355469676,1795355469676,1795441869676,0,1,1795355470808,0,0,0);
CREATE TABLE setup_key_groups (
    setup_key_id TEXT NOT NULL REFERENCES setup_keys (id) ON DELETE CASCADE,
    group_id     TEXT NOT NULL REFERENCES groups (id),
    PRIMARY KEY (setup_key_id, group_id)
) STRICT, WITHOUT ROWID;
CREATE TABLE peers (
    id                            TEXT    PRIMARY KEY,
    wireguard_key                 BLOB    NOT NULL UNIQUE,
    identity_key                  BLOB    NOT NULL,
    setup_key_id                  TEXT    NOT NULL,
    role                          TEXT    NOT NULL,
    name                          TEXT    NOT NULL UNIQUE,
    hostname                      TEXT    NOT NULL,
    dns_label                     TEXT    NOT NULL UNIQUE,
    ip                            TEXT    NOT NULL UNIQUE,
    ipv6                          TEXT    NOT NULL UNIQUE,
    endpoint                      TEXT,
    connection_ip                 TEXT    NOT NULL,
    os                            TEXT    NOT NULL,
    kernel_version                TEXT    NOT NULL,
    version                       TEXT    NOT NULL,
    created_at                    INTEGER NOT NULL,
    last_seen                     INTEGER NOT NULL,
    last_login                    INTEGER NOT NULL,
    connected                     INTEGER NOT NULL,
    ephemeral                     INTEGER NOT NULL,
    approval_required             INTEGER NOT NULL,
    ssh_enabled                   INTEGER NOT NULL,
    login_expiration_enabled      INTEGER NOT NULL,
    inactivity_expiration_enabled INTEGER NOT NULL
, replica TEXT NOT NULL DEFAULT '', user_id TEXT NOT NULL DEFAULT '', expired TEXT NOT NULL DEFAULT '') STRICT;
INSERT INTO peers VALUES('dc1f6jjorj559jhqq3e0',X'66f368816cae4b3f1c657d3d6d28af06766daece60d5652fb8c7cbf934fdc265',X'e185e0b023db3c4f2fd285bb8653b2ce44248ff725e58eec18f4707942d3e19a','dc1f6jborj559jhqq3dg','gateway','gw-1','gw-1','gw-1','100.77.140.126','fdee:778f:1dd2:3110:15f0:2e24:a87:dd79',NULL,'127.0.0.1','linux','6.12.0','0.1.0',1795355470808,1795355470808,1795355470808,0,0,0,0,0,0,'','','');
CREATE TABLE group_peers (
    group_id TEXT NOT NULL REFERENCES groups (id) ON DELETE CASCADE,
    peer_id  TEXT NOT NULL REFERENCES peers (id) ON DELETE CASCADE,
    PRIMARY KEY (group_id, peer_id)
) STRICT, WITHOUT ROWID;
INSERT INTO group_peers VALUES('dc1f6j3orj559jhqq3b0','dc1f6jjorj559jhqq3e0');
INSERT INTO group_peers VALUES('dc1f6j3orj559jhqq3d0','dc1f6jjorj559jhqq3e0');
CREATE TABLE networks (
    id          TEXT PRIMARY KEY,
    name        TEXT NOT NULL UNIQUE,
    description TEXT NOT NULL
) STRICT;
INSERT INTO networks VALUES('dc1f6jrorj559jhqq3eg','site','');
CREATE TABLE resources (
    id          TEXT    PRIMARY KEY,
    network_id  TEXT    NOT NULL REFERENCES networks (id) ON DELETE CASCADE,
    name        TEXT    NOT NULL UNIQUE,
    description TEXT    NOT NULL,
    address     TEXT    NOT NULL,
    kind        TEXT    NOT NULL,
    enabled     INTEGER NOT NULL
) STRICT;
INSERT INTO resources VALUES('dc1f6k3orj559jhqq3f0','dc1f6jrorj559jhqq3eg','db','','10.0.0.5','host',1);
CREATE TABLE group_resources (
    group_id    TEXT NOT NULL REFERENCES groups (id),
    resource_id TEXT NOT NULL REFERENCES resources (id) ON DELETE CASCADE,
    PRIMARY KEY (group_id, resource_id)
) STRICT, WITHOUT ROWID;
INSERT INTO group_resources VALUES('dc1f6j3orj559jhqq3d0','dc1f6k3orj559jhqq3f0');
CREATE TABLE routers (
    id         TEXT    PRIMARY KEY,
    network_id TEXT    NOT NULL REFERENCES networks (id) ON DELETE CASCADE,
    peer_id    TEXT             REFERENCES peers (id),
    metric     INTEGER NOT NULL,
    masquerade INTEGER NOT NULL,
    enabled    INTEGER NOT NULL
) STRICT;
INSERT INTO routers VALUES('dc1f6kborj559jhqq3fg','dc1f6jrorj559jhqq3eg','dc1f6jjorj559jhqq3e0',100,1,1);
CREATE TABLE router_groups (
    router_id TEXT NOT NULL REFERENCES routers (id) ON DELETE CASCADE,
    group_id  TEXT NOT NULL REFERENCES groups (id),
    PRIMARY KEY (router_id, group_id)
) STRICT, WITHOUT ROWID;
CREATE TABLE policies (
    id          TEXT    PRIMARY KEY,
    name        TEXT    NOT NULL UNIQUE,
    description TEXT    NOT NULL,
    enabled     INTEGER NOT NULL
, break_glass INTEGER, break_glass_until INTEGER, break_glass_reason TEXT NOT NULL DEFAULT '') STRICT;
INSERT INTO policies VALUES('dc1f6j3orj559jhqq3c0','Default','Made with the account; switch it off once there are policies of your own',1,NULL,NULL,'');
INSERT INTO policies VALUES('dc1f6kjorj559jhqq3g0','database','',1,NULL,NULL,'');
CREATE TABLE rules (
    id                   TEXT    PRIMARY KEY,
    policy_id            TEXT    NOT NULL REFERENCES policies (id) ON DELETE CASCADE,
    position             INTEGER NOT NULL,
    slot                 INTEGER NOT NULL UNIQUE,
    name                 TEXT    NOT NULL,
    description          TEXT    NOT NULL,
    enabled              INTEGER NOT NULL,
    action               TEXT    NOT NULL,
    bidirectional        INTEGER NOT NULL,
    protocol             TEXT    NOT NULL,
    ports                TEXT    NOT NULL,
    port_ranges          TEXT    NOT NULL,
    authorized_groups    TEXT    NOT NULL,
    source_peer          TEXT REFERENCES peers (id),
    source_resource      TEXT REFERENCES resources (id),
    destination_peer     TEXT REFERENCES peers (id),
    destination_resource TEXT REFERENCES resources (id)
) STRICT;
INSERT INTO rules VALUES('dc1f6j3orj559jhqq3cg','dc1f6j3orj559jhqq3c0',0,0,'Default','Every peer may open any flow to every other peer',1,'accept',1,'all','[]','[]','{}',NULL,NULL,NULL,NULL);
INSERT INTO rules VALUES('dc1f6kjorj559jhqq3gg','dc1f6kjorj559jhqq3g0',0,1,'r','',1,'accept',0,'tcp','[5432]','[]','{}',NULL,NULL,NULL,NULL);
CREATE TABLE rule_groups (
    rule_id  TEXT    NOT NULL REFERENCES rules (id) ON DELETE CASCADE,
    side     INTEGER NOT NULL,
    position INTEGER NOT NULL,
    group_id TEXT    NOT NULL REFERENCES groups (id),
    PRIMARY KEY (rule_id, side, group_id)
) STRICT, WITHOUT ROWID;
INSERT INTO rule_groups VALUES('dc1f6j3orj559jhqq3cg',0,0,'dc1f6j3orj559jhqq3b0');
INSERT INTO rule_groups VALUES('dc1f6j3orj559jhqq3cg',1,0,'dc1f6j3orj559jhqq3b0');
INSERT INTO rule_groups VALUES('dc1f6kjorj559jhqq3gg',0,0,'dc1f6j3orj559jhqq3d0');
INSERT INTO rule_groups VALUES('dc1f6kjorj559jhqq3gg',1,0,'dc1f6j3orj559jhqq3d0');
CREATE TABLE events (
    id              INTEGER PRIMARY KEY AUTOINCREMENT,
    at              INTEGER NOT NULL,
    revision        INTEGER NOT NULL,
    code            TEXT    NOT NULL,
    initiator_id    TEXT    NOT NULL,
    initiator_name  TEXT    NOT NULL,
    initiator_email TEXT    NOT NULL,
    target_id       TEXT    NOT NULL,
    meta            TEXT    NOT NULL
, previous TEXT NOT NULL DEFAULT '', hash TEXT NOT NULL DEFAULT '') STRICT;
INSERT INTO events VALUES(1,1795355468640,1,'account.create','sys','system','','dc1f6j3orj559jhqq3a0','{}','0000000000000000000000000000000000000000000000000000000000000000','52247dc9f46d693e795327c4a996ef9526f9d31253e662d7a8ab95f1d911ee85');
INSERT INTO events VALUES(2,1795355468640,1,'service.user.create','sys','system','','dc1f6j3orj559jhqq3ag','{"name":"bootstrap"}','52247dc9f46d693e795327c4a996ef9526f9d31253e662d7a8ab95f1d911ee85','f1fbdfe4f0aa87c0c5c3f7effdf8e0b526e4220b5e1a0db909d2da2a974d4407');
INSERT INTO events VALUES(3,1795355468640,1,'personal.access.token.create','sys','system','','dc1f6j3orj559jhqq3bg','{"name":"bootstrap"}','f1fbdfe4f0aa87c0c5c3f7effdf8e0b526e4220b5e1a0db909d2da2a974d4407','8cbc313da43aabc75e620070eadb8c3b62f5a7331539eef2a3589c1793bfb5f7');
INSERT INTO events VALUES(4,1795355468992,2,'group.add','dc1f6j3orj559jhqq3ag','bootstrap','','dc1f6j3orj559jhqq3d0','{"after":"{\"id\":\"dc1f6j3orj559jhqq3d0\",\"name\":\"ops\",\"issued\":\"api\",\"built_in\":false,\"peers\":[],\"resources\":[]}","name":"ops"}','8cbc313da43aabc75e620070eadb8c3b62f5a7331539eef2a3589c1793bfb5f7','4baf72703e85ddc6e65164feb7bd76ec557ea0902ee5109c7ac0dc725c1fe791');
INSERT INTO events VALUES(5,1795355469676,3,'setupkey.add','dc1f6j3orj559jhqq3ag','bootstrap','','dc1f6jborj559jhqq3dg','{"after":"{\"id\":\"dc1f6jborj559jhqq3dg\",\"name\":\"site\",\"masked\":\"C03CF*******************************\",\"reusable\":true,\"created_at\":1795355469676,\"updated_at\":1795355469676,\"expires_at\":1795441869676,\"revoked\":false,\"used_times\":0,\"last_used\":null,\"usage_limit\":0,\"ephemeral\":false,\"allow_extra_dns_labels\":false,\"auto_groups\":[]}","name":"site"}','4baf72703e85ddc6e65164feb7bd76ec557ea0902ee5109c7ac0dc725c1fe791','6ab930a3736bd16031f5a8b4a38b5f9b4dee9292a97d97a20c6ba580b709f2d3');
INSERT INTO events VALUES(6,1795355470808,4,'peer.setupkey.add','dc1f6jborj559jhqq3dg','site','','dc1f6jjorj559jhqq3e0','{"after":"{\"id\":\"dc1f6jjorj559jhqq3e0\",\"name\":\"gw-1\",\"hostname\":\"gw-1\",\"dns_label\":\"gw-1\",\"role\":\"gateway\",\"ip\":\"100.77.140.126\",\"ipv6\":\"fdee:778f:1dd2:3110:15f0:2e24:a87:dd79\",\"endpoint\":null,\"connection_ip\":\"127.0.0.1\",\"os\":\"linux\",\"kernel_version\":\"6.12.0\",\"version\":\"0.1.0\",\"created_at\":1795355470808,\"last_seen\":1795355470808,\"last_login\":1795355470808,\"connected\":false,\"ephemeral\":false,\"approval_required\":false,\"ssh_enabled\":false,\"login_expiration_enabled\":false,\"inactivity_expiration_enabled\":false,\"groups\":[{\"id\":\"dc1f6j3orj559jhqq3b0\",\"name\":\"All\"}]}","name":"gw-1","setup_key_name":"site"}','6ab930a3736bd16031f5a8b4a38b5f9b4dee9292a97d97a20c6ba580b709f2d3','7258d056d5004da3fa519066590f1dcf9c5d38c34fe675902f3071da76c2d074');
INSERT INTO events VALUES(7,1795355471973,5,'network.create','dc1f6j3orj559jhqq3ag','bootstrap','','dc1f6jrorj559jhqq3eg','{"after":"{\"id\":\"dc1f6jrorj559jhqq3eg\",\"name\":\"site\",\"description\":\"\",\"routers\":[],\"resources\":[],\"policies\":[],\"routing_peers\":0}","name":"site"}','7258d056d5004da3fa519066590f1dcf9c5d38c34fe675902f3071da76c2d074','fa70708213f181d7cf23e9bfe5a4e4ef61e3ef37710da97564acf3d39b95a5ad');
INSERT INTO events VALUES(8,1795355472928,6,'network.resource.create','dc1f6j3orj559jhqq3ag','bootstrap','','dc1f6k3orj559jhqq3f0','{"after":"{\"id\":\"dc1f6k3orj559jhqq3f0\",\"network_id\":\"dc1f6jrorj559jhqq3eg\",\"name\":\"db\",\"description\":\"\",\"address\":\"10.0.0.5\",\"kind\":\"host\",\"enabled\":true,\"groups\":[{\"id\":\"dc1f6j3orj559jhqq3d0\",\"name\":\"ops\"}]}","name":"db","network_name":"site"}','fa70708213f181d7cf23e9bfe5a4e4ef61e3ef37710da97564acf3d39b95a5ad','d27ad572e8a5a7d42d689dc529f11d56c6968da74a9453f7f955d46650cbc47b');
INSERT INTO events VALUES(9,1795355473885,7,'network.router.create','dc1f6j3orj559jhqq3ag','bootstrap','','dc1f6kborj559jhqq3fg','{"after":"{\"id\":\"dc1f6kborj559jhqq3fg\",\"network_id\":\"dc1f6jrorj559jhqq3eg\",\"peer\":\"dc1f6jjorj559jhqq3e0\",\"peer_groups\":[],\"metric\":100,\"masquerade\":true,\"enabled\":true}","network_name":"site"}','d27ad572e8a5a7d42d689dc529f11d56c6968da74a9453f7f955d46650cbc47b','94218403d0f0d04d4717bde0b312b3733f1422f65658e90b964a8b1b7aab086f');
INSERT INTO events VALUES(10,1795355474077,8,'policy.add','dc1f6j3orj559jhqq3ag','bootstrap','','dc1f6kjorj559jhqq3g0','{"after":"{\"id\":\"dc1f6kjorj559jhqq3g0\",\"name\":\"database\",\"description\":\"\",\"enabled\":true,\"rules\":[{\"id\":\"dc1f6kjorj559jhqq3gg\",\"slot\":1,\"name\":\"r\",\"description\":\"\",\"enabled\":true,\"action\":\"accept\",\"bidirectional\":false,\"protocol\":\"tcp\",\"ports\":[5432],\"port_ranges\":[],\"authorized_groups\":{},\"sources\":{\"groups\":[\"dc1f6j3orj559jhqq3d0\"]},\"destinations\":{\"groups\":[\"dc1f6j3orj559jhqq3d0\"]}}]}","name":"database"}','94218403d0f0d04d4717bde0b312b3733f1422f65658e90b964a8b1b7aab086f','a6f791ded3c25523f0689554c499e09b9497c72a03773a8801c8590e27243806');
INSERT INTO events VALUES(11,1795355474214,9,'group.update','dc1f6j3orj559jhqq3ag','bootstrap','','dc1f6j3orj559jhqq3d0','{"after":"{\"id\":\"dc1f6j3orj559jhqq3d0\",\"name\":\"ops\",\"issued\":\"api\",\"built_in\":false,\"peers\":[{\"id\":\"dc1f6jjorj559jhqq3e0\",\"name\":\"gw-1\"}],\"resources\":[{\"id\":\"dc1f6k3orj559jhqq3f0\",\"kind\":\"host\"}]}","before":"{\"id\":\"dc1f6j3orj559jhqq3d0\",\"name\":\"ops\",\"issued\":\"api\",\"built_in\":false,\"peers\":[],\"resources\":[{\"id\":\"dc1f6k3orj559jhqq3f0\",\"kind\":\"host\"}]}","name":"ops"}','a6f791ded3c25523f0689554c499e09b9497c72a03773a8801c8590e27243806','b627c8f4460c2782d09c9cf02ad13ffbcf489df073a5fbbb76f0e162a45eb9d8');
CREATE TABLE replicas (
    id        TEXT    PRIMARY KEY,
    last_seen INTEGER NOT NULL
) STRICT;
CREATE TABLE audit_chain (
    only_one       INTEGER PRIMARY KEY CHECK (only_one = 1),
    head_id        INTEGER NOT NULL,
    head_hash      TEXT    NOT NULL,
    anchor_id      INTEGER NOT NULL,
    anchor_hash    TEXT    NOT NULL,
    anchor_removed INTEGER NOT NULL
) STRICT;
INSERT INTO audit_chain VALUES(1,11,'b627c8f4460c2782d09c9cf02ad13ffbcf489df073a5fbbb76f0e162a45eb9d8',0,'0000000000000000000000000000000000000000000000000000000000000000',0);
CREATE TABLE routes (
    id              TEXT    PRIMARY KEY,
    network_id      TEXT    NOT NULL,
    description     TEXT    NOT NULL,
    network         TEXT    NOT NULL,
    peer_id         TEXT             REFERENCES peers (id),
    metric          INTEGER NOT NULL,
    masquerade      INTEGER NOT NULL,
    enabled         INTEGER NOT NULL,
    keep_route      INTEGER NOT NULL,
    skip_auto_apply INTEGER NOT NULL,
    slot            INTEGER NOT NULL UNIQUE
) STRICT;
CREATE TABLE route_groups (
    route_id TEXT    NOT NULL REFERENCES routes (id) ON DELETE CASCADE,
    role     INTEGER NOT NULL,
    group_id TEXT    NOT NULL REFERENCES groups (id),
    PRIMARY KEY (route_id, role, group_id)
) STRICT, WITHOUT ROWID;
CREATE TABLE nameserver_groups (
    id                     TEXT    PRIMARY KEY,
    name                   TEXT    NOT NULL UNIQUE,
    description            TEXT    NOT NULL,
    enabled                INTEGER NOT NULL,
    is_primary             INTEGER NOT NULL,
    search_domains_enabled INTEGER NOT NULL,
    nameservers            TEXT    NOT NULL,
    domains                TEXT    NOT NULL
) STRICT;
CREATE TABLE nameserver_group_groups (
    nameserver_group_id TEXT NOT NULL REFERENCES nameserver_groups (id) ON DELETE CASCADE,
    group_id            TEXT NOT NULL REFERENCES groups (id),
    PRIMARY KEY (nameserver_group_id, group_id)
) STRICT, WITHOUT ROWID;
CREATE TABLE dns_disabled_groups (
    group_id TEXT PRIMARY KEY REFERENCES groups (id)
) STRICT, WITHOUT ROWID;
CREATE TABLE zones (
    id                   TEXT    PRIMARY KEY,
    name                 TEXT    NOT NULL,
    domain               TEXT    NOT NULL UNIQUE,
    enabled              INTEGER NOT NULL,
    enable_search_domain INTEGER NOT NULL
) STRICT;
CREATE TABLE zone_groups (
    zone_id  TEXT NOT NULL REFERENCES zones (id) ON DELETE CASCADE,
    group_id TEXT NOT NULL REFERENCES groups (id),
    PRIMARY KEY (zone_id, group_id)
) STRICT, WITHOUT ROWID;
CREATE TABLE records (
    id      TEXT    PRIMARY KEY,
    zone_id TEXT    NOT NULL REFERENCES zones (id) ON DELETE CASCADE,
    name    TEXT    NOT NULL,
    kind    TEXT    NOT NULL,
    content TEXT    NOT NULL,
    ttl     INTEGER NOT NULL
) STRICT;
CREATE TABLE answers (
    id      BLOB    PRIMARY KEY,
    at      INTEGER NOT NULL,
    request BLOB    NOT NULL,
    status  INTEGER NOT NULL,
    body    BLOB    NOT NULL
) STRICT;
CREATE TABLE posture_checks (
    id          TEXT PRIMARY KEY,
    name        TEXT NOT NULL UNIQUE,
    description TEXT NOT NULL,
    checks      TEXT NOT NULL
) STRICT;
CREATE TABLE policy_posture_checks (
    policy_id TEXT    NOT NULL REFERENCES policies (id) ON DELETE CASCADE,
    position  INTEGER NOT NULL,
    check_id  TEXT    NOT NULL REFERENCES posture_checks (id),
    PRIMARY KEY (policy_id, check_id)
) STRICT, WITHOUT ROWID;
CREATE TABLE peer_facts (
    peer_id      TEXT    PRIMARY KEY REFERENCES peers (id) ON DELETE CASCADE,
    current      INTEGER NOT NULL,
    os_version   TEXT    NOT NULL,
    addresses    TEXT,
    processes    TEXT    NOT NULL,
    country_code TEXT    NOT NULL,
    city_name    TEXT    NOT NULL,
    geoname_id   INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE policy_revisions (
    number  INTEGER PRIMARY KEY,
    at      INTEGER NOT NULL,
    kind    TEXT    NOT NULL,
    actor   TEXT    NOT NULL,
    message TEXT    NOT NULL,
    file    TEXT    NOT NULL
) STRICT;
CREATE TABLE sessions (
    id         TEXT    PRIMARY KEY,
    user_id    TEXT    NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    hash       BLOB    NOT NULL UNIQUE,
    created_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL
, method TEXT NOT NULL DEFAULT '', address TEXT NOT NULL DEFAULT '', client TEXT NOT NULL DEFAULT '', last_used INTEGER) STRICT;
CREATE TABLE touched (
    seq    INTEGER PRIMARY KEY AUTOINCREMENT,
    kind   TEXT NOT NULL,
    id     TEXT NOT NULL,
    member TEXT NOT NULL
) STRICT;
CREATE TABLE credentials (
    user_id     TEXT    PRIMARY KEY REFERENCES users (id) ON DELETE CASCADE,
    login       TEXT    NOT NULL UNIQUE,
    password    TEXT    NOT NULL,
    changed_at  INTEGER NOT NULL,
    totp_secret BLOB    NOT NULL,
    totp_on     INTEGER NOT NULL,
    totp_step   INTEGER NOT NULL
) STRICT;
CREATE TABLE password_attempts (
    login_hash BLOB    PRIMARY KEY,
    failures   INTEGER NOT NULL,
    failed_at  INTEGER NOT NULL
) STRICT;
CREATE TABLE invites (
    id         TEXT    PRIMARY KEY,
    hash       BLOB    NOT NULL UNIQUE,
    user_id    TEXT    REFERENCES users (id) ON DELETE CASCADE,
    email      TEXT    NOT NULL,
    name       TEXT    NOT NULL,
    role       TEXT    NOT NULL,
    created_by TEXT    NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    created_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL
) STRICT;
CREATE TABLE invite_groups (
    invite_id TEXT NOT NULL REFERENCES invites (id) ON DELETE CASCADE,
    group_id  TEXT NOT NULL REFERENCES groups (id) ON DELETE CASCADE,
    PRIMARY KEY (invite_id, group_id)
) STRICT;
CREATE TABLE join_keys (
    hash         BLOB    PRIMARY KEY,
    user_id      TEXT    NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    expires_at   INTEGER NOT NULL,
    identity_key BLOB    NOT NULL
) STRICT;
DELETE FROM sqlite_sequence;
INSERT INTO sqlite_sequence VALUES('events',11);
CREATE INDEX user_groups_group ON user_groups (group_id);
CREATE INDEX tokens_user ON tokens (user_id);
CREATE INDEX setup_key_groups_group ON setup_key_groups (group_id);
CREATE INDEX group_peers_peer ON group_peers (peer_id);
CREATE INDEX resources_network ON resources (network_id);
CREATE INDEX group_resources_resource ON group_resources (resource_id);
CREATE INDEX routers_network ON routers (network_id);
CREATE INDEX routers_peer ON routers (peer_id);
CREATE INDEX router_groups_group ON router_groups (group_id);
CREATE INDEX rules_policy ON rules (policy_id, position);
CREATE INDEX rules_source_peer ON rules (source_peer);
CREATE INDEX rules_source_resource ON rules (source_resource);
CREATE INDEX rules_destination_peer ON rules (destination_peer);
CREATE INDEX rules_destination_resource ON rules (destination_resource);
CREATE INDEX rule_groups_group ON rule_groups (group_id);
CREATE INDEX routes_peer ON routes (peer_id);
CREATE INDEX routes_network ON routes (network);
CREATE INDEX route_groups_group ON route_groups (group_id);
CREATE INDEX nameserver_group_groups_group ON nameserver_group_groups (group_id);
CREATE INDEX zone_groups_group ON zone_groups (group_id);
CREATE INDEX records_zone ON records (zone_id);
CREATE INDEX answers_at ON answers (at);
CREATE INDEX policy_posture_checks_check ON policy_posture_checks (check_id);
CREATE INDEX users_email ON users (email) WHERE email <> '';
CREATE UNIQUE INDEX users_subject ON users (issuer, subject) WHERE subject <> '';
CREATE INDEX sessions_user ON sessions (user_id);
CREATE INDEX peers_user ON peers (user_id) WHERE user_id <> '';
CREATE TRIGGER touched_peers_insert AFTER INSERT ON peers BEGIN
    INSERT INTO touched (kind, id, member) VALUES ('peer', NEW.id, '');
END;
CREATE TRIGGER touched_peers_delete AFTER DELETE ON peers BEGIN
    INSERT INTO touched (kind, id, member) VALUES ('peer', OLD.id, '');
END;
CREATE TRIGGER touched_peers_update AFTER UPDATE ON peers
WHEN (OLD.id, OLD.wireguard_key, OLD.role, OLD.name, OLD.ip, OLD.ipv6, OLD.endpoint,
     OLD.connection_ip, OLD.os, OLD.kernel_version, OLD.version, OLD.approval_required, OLD.user_id,
     OLD.expired)
    IS NOT (NEW.id, NEW.wireguard_key, NEW.role, NEW.name, NEW.ip, NEW.ipv6, NEW.endpoint,
     NEW.connection_ip, NEW.os, NEW.kernel_version, NEW.version, NEW.approval_required, NEW.user_id,
     NEW.expired)
BEGIN
    INSERT INTO touched (kind, id, member) VALUES ('peer', OLD.id, '');
    INSERT INTO touched (kind, id, member) VALUES ('peer', NEW.id, '');
END;
CREATE TRIGGER touched_peer_facts_insert AFTER INSERT ON peer_facts BEGIN
    INSERT INTO touched (kind, id, member) VALUES ('peer', NEW.peer_id, '');
END;
CREATE TRIGGER touched_peer_facts_delete AFTER DELETE ON peer_facts BEGIN
    INSERT INTO touched (kind, id, member) VALUES ('peer', OLD.peer_id, '');
END;
CREATE TRIGGER touched_peer_facts_update AFTER UPDATE ON peer_facts BEGIN
    INSERT INTO touched (kind, id, member) VALUES ('peer', OLD.peer_id, '');
    INSERT INTO touched (kind, id, member) VALUES ('peer', NEW.peer_id, '');
END;
CREATE TRIGGER touched_users_insert AFTER INSERT ON users BEGIN
    INSERT INTO touched (kind, id, member) VALUES ('user', NEW.id, '');
END;
CREATE TRIGGER touched_users_delete AFTER DELETE ON users BEGIN
    INSERT INTO touched (kind, id, member) VALUES ('user', OLD.id, '');
END;
CREATE TRIGGER touched_users_update AFTER UPDATE ON users
WHEN (OLD.id, OLD.blocked, OLD.pending_approval)
    IS NOT (NEW.id, NEW.blocked, NEW.pending_approval)
BEGIN
    INSERT INTO touched (kind, id, member) VALUES ('user', OLD.id, '');
    INSERT INTO touched (kind, id, member) VALUES ('user', NEW.id, '');
END;
CREATE TRIGGER touched_groups_insert AFTER INSERT ON groups BEGIN
    INSERT INTO touched (kind, id, member) VALUES ('group', NEW.id, '');
END;
CREATE TRIGGER touched_groups_delete AFTER DELETE ON groups BEGIN
    INSERT INTO touched (kind, id, member) VALUES ('group', OLD.id, '');
END;
CREATE TRIGGER touched_groups_update AFTER UPDATE ON groups BEGIN
    INSERT INTO touched (kind, id, member) VALUES ('group', OLD.id, '');
    INSERT INTO touched (kind, id, member) VALUES ('group', NEW.id, '');
END;
CREATE TRIGGER touched_group_peers_insert AFTER INSERT ON group_peers BEGIN
    INSERT INTO touched (kind, id, member) VALUES ('member', NEW.group_id, NEW.peer_id);
END;
CREATE TRIGGER touched_group_peers_delete AFTER DELETE ON group_peers BEGIN
    INSERT INTO touched (kind, id, member) VALUES ('member', OLD.group_id, OLD.peer_id);
END;
CREATE TRIGGER touched_group_peers_update AFTER UPDATE ON group_peers BEGIN
    INSERT INTO touched (kind, id, member) VALUES ('member', OLD.group_id, OLD.peer_id);
    INSERT INTO touched (kind, id, member) VALUES ('member', NEW.group_id, NEW.peer_id);
END;
CREATE TRIGGER touched_group_resources_insert AFTER INSERT ON group_resources BEGIN
    INSERT INTO touched (kind, id, member) VALUES ('holds', NEW.group_id, '');
END;
CREATE TRIGGER touched_group_resources_delete AFTER DELETE ON group_resources BEGIN
    INSERT INTO touched (kind, id, member) VALUES ('holds', OLD.group_id, '');
END;
CREATE TRIGGER touched_group_resources_update AFTER UPDATE ON group_resources BEGIN
    INSERT INTO touched (kind, id, member) VALUES ('holds', OLD.group_id, '');
    INSERT INTO touched (kind, id, member) VALUES ('holds', NEW.group_id, '');
END;
CREATE TRIGGER touched_networks_insert AFTER INSERT ON networks BEGIN
    INSERT INTO touched (kind, id, member) VALUES ('network', NEW.id, '');
END;
CREATE TRIGGER touched_networks_delete AFTER DELETE ON networks BEGIN
    INSERT INTO touched (kind, id, member) VALUES ('network', OLD.id, '');
END;
CREATE TRIGGER touched_networks_update AFTER UPDATE ON networks BEGIN
    INSERT INTO touched (kind, id, member) VALUES ('network', OLD.id, '');
    INSERT INTO touched (kind, id, member) VALUES ('network', NEW.id, '');
END;
CREATE TRIGGER touched_resources_insert AFTER INSERT ON resources BEGIN
    INSERT INTO touched (kind, id, member) VALUES ('network', NEW.network_id, '');
END;
CREATE TRIGGER touched_resources_delete AFTER DELETE ON resources BEGIN
    INSERT INTO touched (kind, id, member) VALUES ('network', OLD.network_id, '');
END;
CREATE TRIGGER touched_resources_update AFTER UPDATE ON resources BEGIN
    INSERT INTO touched (kind, id, member) VALUES ('network', OLD.network_id, '');
    INSERT INTO touched (kind, id, member) VALUES ('network', NEW.network_id, '');
END;
CREATE TRIGGER touched_routers_insert AFTER INSERT ON routers BEGIN
    INSERT INTO touched (kind, id, member) VALUES ('network', NEW.network_id, '');
END;
CREATE TRIGGER touched_routers_delete AFTER DELETE ON routers BEGIN
    INSERT INTO touched (kind, id, member) VALUES ('network', OLD.network_id, '');
END;
CREATE TRIGGER touched_routers_update AFTER UPDATE ON routers BEGIN
    INSERT INTO touched (kind, id, member) VALUES ('network', OLD.network_id, '');
    INSERT INTO touched (kind, id, member) VALUES ('network', NEW.network_id, '');
END;
CREATE TRIGGER touched_router_groups_insert AFTER INSERT ON router_groups BEGIN
    INSERT INTO touched (kind, id, member) VALUES ('router', NEW.router_id, '');
END;
CREATE TRIGGER touched_router_groups_delete AFTER DELETE ON router_groups BEGIN
    INSERT INTO touched (kind, id, member) VALUES ('router', OLD.router_id, '');
END;
CREATE TRIGGER touched_router_groups_update AFTER UPDATE ON router_groups BEGIN
    INSERT INTO touched (kind, id, member) VALUES ('router', OLD.router_id, '');
    INSERT INTO touched (kind, id, member) VALUES ('router', NEW.router_id, '');
END;
CREATE TRIGGER touched_policies_insert AFTER INSERT ON policies BEGIN
    INSERT INTO touched (kind, id, member) VALUES ('policy', NEW.id, '');
END;
CREATE TRIGGER touched_policies_delete AFTER DELETE ON policies BEGIN
    INSERT INTO touched (kind, id, member) VALUES ('policy', OLD.id, '');
END;
CREATE TRIGGER touched_policies_update AFTER UPDATE ON policies BEGIN
    INSERT INTO touched (kind, id, member) VALUES ('policy', OLD.id, '');
    INSERT INTO touched (kind, id, member) VALUES ('policy', NEW.id, '');
END;
CREATE TRIGGER touched_rules_insert AFTER INSERT ON rules BEGIN
    INSERT INTO touched (kind, id, member) VALUES ('policy', NEW.policy_id, '');
END;
CREATE TRIGGER touched_rules_delete AFTER DELETE ON rules BEGIN
    INSERT INTO touched (kind, id, member) VALUES ('policy', OLD.policy_id, '');
END;
CREATE TRIGGER touched_rules_update AFTER UPDATE ON rules BEGIN
    INSERT INTO touched (kind, id, member) VALUES ('policy', OLD.policy_id, '');
    INSERT INTO touched (kind, id, member) VALUES ('policy', NEW.policy_id, '');
END;
CREATE TRIGGER touched_rule_groups_insert AFTER INSERT ON rule_groups BEGIN
    INSERT INTO touched (kind, id, member) VALUES ('rule', NEW.rule_id, '');
END;
CREATE TRIGGER touched_rule_groups_delete AFTER DELETE ON rule_groups BEGIN
    INSERT INTO touched (kind, id, member) VALUES ('rule', OLD.rule_id, '');
END;
CREATE TRIGGER touched_rule_groups_update AFTER UPDATE ON rule_groups BEGIN
    INSERT INTO touched (kind, id, member) VALUES ('rule', OLD.rule_id, '');
    INSERT INTO touched (kind, id, member) VALUES ('rule', NEW.rule_id, '');
END;
CREATE TRIGGER touched_policy_posture_checks_insert AFTER INSERT ON policy_posture_checks BEGIN
    INSERT INTO touched (kind, id, member) VALUES ('policy', NEW.policy_id, '');
END;
CREATE TRIGGER touched_policy_posture_checks_delete AFTER DELETE ON policy_posture_checks BEGIN
    INSERT INTO touched (kind, id, member) VALUES ('policy', OLD.policy_id, '');
END;
CREATE TRIGGER touched_policy_posture_checks_update AFTER UPDATE ON policy_posture_checks BEGIN
    INSERT INTO touched (kind, id, member) VALUES ('policy', OLD.policy_id, '');
    INSERT INTO touched (kind, id, member) VALUES ('policy', NEW.policy_id, '');
END;
CREATE TRIGGER touched_routes_insert AFTER INSERT ON routes BEGIN
    INSERT INTO touched (kind, id, member) VALUES ('route', NEW.id, '');
END;
CREATE TRIGGER touched_routes_delete AFTER DELETE ON routes BEGIN
    INSERT INTO touched (kind, id, member) VALUES ('route', OLD.id, '');
END;
CREATE TRIGGER touched_routes_update AFTER UPDATE ON routes BEGIN
    INSERT INTO touched (kind, id, member) VALUES ('route', OLD.id, '');
    INSERT INTO touched (kind, id, member) VALUES ('route', NEW.id, '');
END;
CREATE TRIGGER touched_route_groups_insert AFTER INSERT ON route_groups BEGIN
    INSERT INTO touched (kind, id, member) VALUES ('route', NEW.route_id, '');
END;
CREATE TRIGGER touched_route_groups_delete AFTER DELETE ON route_groups BEGIN
    INSERT INTO touched (kind, id, member) VALUES ('route', OLD.route_id, '');
END;
CREATE TRIGGER touched_route_groups_update AFTER UPDATE ON route_groups BEGIN
    INSERT INTO touched (kind, id, member) VALUES ('route', OLD.route_id, '');
    INSERT INTO touched (kind, id, member) VALUES ('route', NEW.route_id, '');
END;
CREATE TRIGGER touched_posture_checks_insert AFTER INSERT ON posture_checks BEGIN
    INSERT INTO touched (kind, id, member) VALUES ('posture', NEW.id, '');
END;
CREATE TRIGGER touched_posture_checks_delete AFTER DELETE ON posture_checks BEGIN
    INSERT INTO touched (kind, id, member) VALUES ('posture', OLD.id, '');
END;
CREATE TRIGGER touched_posture_checks_update AFTER UPDATE ON posture_checks BEGIN
    INSERT INTO touched (kind, id, member) VALUES ('posture', OLD.id, '');
    INSERT INTO touched (kind, id, member) VALUES ('posture', NEW.id, '');
END;
CREATE INDEX password_attempts_at ON password_attempts (failed_at);
CREATE INDEX join_keys_user ON join_keys (user_id);
COMMIT;
