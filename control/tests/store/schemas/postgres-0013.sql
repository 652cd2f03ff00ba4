SET statement_timeout = 0;
SET lock_timeout = 0;
SET idle_in_transaction_session_timeout = 0;
SET client_encoding = 'UTF8';
SET standard_conforming_strings = on;
SELECT pg_catalog.set_config('search_path', '', false);
SET check_function_bodies = false;
SET xmloption = content;
SET client_min_messages = warning;
SET row_security = off;
CREATE FUNCTION public.touch() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
DECLARE
    line JSONB;
BEGIN
    IF TG_OP <> 'INSERT' THEN
        line := to_jsonb(OLD);
        INSERT INTO touched (kind, id, member)
        VALUES (TG_ARGV[0], line ->> TG_ARGV[1], CASE TG_NARGS WHEN 3 THEN line ->> TG_ARGV[2] ELSE '' END);
    END IF;
    IF TG_OP <> 'DELETE' THEN
        line := to_jsonb(NEW);
        INSERT INTO touched (kind, id, member)
        VALUES (TG_ARGV[0], line ->> TG_ARGV[1], CASE TG_NARGS WHEN 3 THEN line ->> TG_ARGV[2] ELSE '' END);
    END IF;
    RETURN NULL;
END $$;
SET default_tablespace = '';
SET default_table_access_method = heap;
CREATE TABLE public._sqlx_migrations (
    version bigint NOT NULL,
    description text NOT NULL,
    installed_on timestamp with time zone DEFAULT now() NOT NULL,
    success boolean NOT NULL,
    checksum bytea NOT NULL,
    execution_time bigint NOT NULL
);
CREATE TABLE public.account (
    only_one bigint NOT NULL,
    id text NOT NULL COLLATE pg_catalog."C",
    domain text NOT NULL COLLATE pg_catalog."C",
    created_at bigint NOT NULL,
    created_by text NOT NULL COLLATE pg_catalog."C",
    revision bigint NOT NULL,
    settings text NOT NULL COLLATE pg_catalog."C",
    authority text DEFAULT ''::text NOT NULL COLLATE pg_catalog."C",
    CONSTRAINT account_only_one_check CHECK ((only_one = 1))
);
CREATE TABLE public.answers (
    id bytea NOT NULL,
    at bigint NOT NULL,
    request bytea NOT NULL,
    status bigint NOT NULL,
    body bytea NOT NULL
);
CREATE TABLE public.audit_chain (
    only_one bigint NOT NULL,
    head_id bigint NOT NULL,
    head_hash text NOT NULL COLLATE pg_catalog."C",
    anchor_id bigint NOT NULL,
    anchor_hash text NOT NULL COLLATE pg_catalog."C",
    anchor_removed bigint NOT NULL,
    CONSTRAINT audit_chain_only_one_check CHECK ((only_one = 1))
);
CREATE TABLE public.credentials (
    user_id text NOT NULL COLLATE pg_catalog."C",
    login text NOT NULL COLLATE pg_catalog."C",
    password text NOT NULL COLLATE pg_catalog."C",
    changed_at bigint NOT NULL,
    totp_secret bytea NOT NULL,
    totp_on boolean NOT NULL,
    totp_step bigint NOT NULL
);
CREATE TABLE public.dns_disabled_groups (
    group_id text NOT NULL COLLATE pg_catalog."C"
);
CREATE TABLE public.events (
    id bigint NOT NULL,
    at bigint NOT NULL,
    revision bigint NOT NULL,
    code text NOT NULL COLLATE pg_catalog."C",
    initiator_id text NOT NULL COLLATE pg_catalog."C",
    initiator_name text NOT NULL COLLATE pg_catalog."C",
    initiator_email text NOT NULL COLLATE pg_catalog."C",
    target_id text NOT NULL COLLATE pg_catalog."C",
    meta text NOT NULL COLLATE pg_catalog."C",
    previous text DEFAULT ''::text NOT NULL COLLATE pg_catalog."C",
    hash text DEFAULT ''::text NOT NULL COLLATE pg_catalog."C"
);
CREATE TABLE public.group_peers (
    group_id text NOT NULL COLLATE pg_catalog."C",
    peer_id text NOT NULL COLLATE pg_catalog."C"
);
CREATE TABLE public.group_resources (
    group_id text NOT NULL COLLATE pg_catalog."C",
    resource_id text NOT NULL COLLATE pg_catalog."C"
);
CREATE TABLE public.groups (
    id text NOT NULL COLLATE pg_catalog."C",
    name text NOT NULL COLLATE pg_catalog."C",
    issued text NOT NULL COLLATE pg_catalog."C",
    built_in boolean DEFAULT false NOT NULL
);
CREATE TABLE public.invite_groups (
    invite_id text NOT NULL COLLATE pg_catalog."C",
    group_id text NOT NULL COLLATE pg_catalog."C"
);
CREATE TABLE public.invites (
    id text NOT NULL COLLATE pg_catalog."C",
    hash bytea NOT NULL,
    user_id text COLLATE pg_catalog."C",
    email text NOT NULL COLLATE pg_catalog."C",
    name text NOT NULL COLLATE pg_catalog."C",
    role text NOT NULL COLLATE pg_catalog."C",
    created_by text NOT NULL COLLATE pg_catalog."C",
    created_at bigint NOT NULL,
    expires_at bigint NOT NULL
);
CREATE TABLE public.join_keys (
    hash bytea NOT NULL,
    user_id text NOT NULL COLLATE pg_catalog."C",
    expires_at bigint NOT NULL,
    identity_key bytea NOT NULL
);
CREATE TABLE public.nameserver_group_groups (
    nameserver_group_id text NOT NULL COLLATE pg_catalog."C",
    group_id text NOT NULL COLLATE pg_catalog."C"
);
CREATE TABLE public.nameserver_groups (
    id text NOT NULL COLLATE pg_catalog."C",
    name text NOT NULL COLLATE pg_catalog."C",
    description text NOT NULL COLLATE pg_catalog."C",
    enabled boolean NOT NULL,
    is_primary boolean NOT NULL,
    search_domains_enabled boolean NOT NULL,
    nameservers text NOT NULL COLLATE pg_catalog."C",
    domains text NOT NULL COLLATE pg_catalog."C"
);
CREATE TABLE public.networks (
    id text NOT NULL COLLATE pg_catalog."C",
    name text NOT NULL COLLATE pg_catalog."C",
    description text NOT NULL COLLATE pg_catalog."C"
);
CREATE TABLE public.password_attempts (
    login_hash bytea NOT NULL,
    failures bigint NOT NULL,
    failed_at bigint NOT NULL
);
CREATE TABLE public.peer_facts (
    peer_id text NOT NULL COLLATE pg_catalog."C",
    current boolean NOT NULL,
    os_version text NOT NULL COLLATE pg_catalog."C",
    addresses text COLLATE pg_catalog."C",
    processes text NOT NULL COLLATE pg_catalog."C",
    country_code text NOT NULL COLLATE pg_catalog."C",
    city_name text NOT NULL COLLATE pg_catalog."C",
    geoname_id bigint NOT NULL
);
CREATE TABLE public.peers (
    id text NOT NULL COLLATE pg_catalog."C",
    wireguard_key bytea NOT NULL,
    identity_key bytea NOT NULL,
    setup_key_id text NOT NULL COLLATE pg_catalog."C",
    role text NOT NULL COLLATE pg_catalog."C",
    name text NOT NULL COLLATE pg_catalog."C",
    hostname text NOT NULL COLLATE pg_catalog."C",
    dns_label text NOT NULL COLLATE pg_catalog."C",
    ip text NOT NULL COLLATE pg_catalog."C",
    ipv6 text NOT NULL COLLATE pg_catalog."C",
    endpoint text COLLATE pg_catalog."C",
    connection_ip text NOT NULL COLLATE pg_catalog."C",
    os text NOT NULL COLLATE pg_catalog."C",
    kernel_version text NOT NULL COLLATE pg_catalog."C",
    version text NOT NULL COLLATE pg_catalog."C",
    created_at bigint NOT NULL,
    last_seen bigint NOT NULL,
    last_login bigint NOT NULL,
    connected boolean NOT NULL,
    ephemeral boolean NOT NULL,
    approval_required boolean NOT NULL,
    ssh_enabled boolean NOT NULL,
    login_expiration_enabled boolean NOT NULL,
    inactivity_expiration_enabled boolean NOT NULL,
    replica text DEFAULT ''::text NOT NULL COLLATE pg_catalog."C",
    user_id text DEFAULT ''::text NOT NULL COLLATE pg_catalog."C",
    expired text DEFAULT ''::text NOT NULL COLLATE pg_catalog."C"
);
CREATE TABLE public.policies (
    id text NOT NULL COLLATE pg_catalog."C",
    name text NOT NULL COLLATE pg_catalog."C",
    description text NOT NULL COLLATE pg_catalog."C",
    enabled boolean NOT NULL,
    break_glass bigint,
    break_glass_until bigint,
    break_glass_reason text DEFAULT ''::text NOT NULL COLLATE pg_catalog."C"
);
CREATE TABLE public.policy_posture_checks (
    policy_id text NOT NULL COLLATE pg_catalog."C",
    "position" bigint NOT NULL,
    check_id text NOT NULL COLLATE pg_catalog."C"
);
CREATE TABLE public.policy_revisions (
    number bigint NOT NULL,
    at bigint NOT NULL,
    kind text NOT NULL COLLATE pg_catalog."C",
    actor text NOT NULL COLLATE pg_catalog."C",
    message text NOT NULL COLLATE pg_catalog."C",
    file text NOT NULL COLLATE pg_catalog."C"
);
CREATE TABLE public.posture_checks (
    id text NOT NULL COLLATE pg_catalog."C",
    name text NOT NULL COLLATE pg_catalog."C",
    description text NOT NULL COLLATE pg_catalog."C",
    checks text NOT NULL COLLATE pg_catalog."C"
);
CREATE TABLE public.records (
    id text NOT NULL COLLATE pg_catalog."C",
    zone_id text NOT NULL COLLATE pg_catalog."C",
    name text NOT NULL COLLATE pg_catalog."C",
    kind text NOT NULL COLLATE pg_catalog."C",
    content text NOT NULL COLLATE pg_catalog."C",
    ttl bigint NOT NULL
);
CREATE TABLE public.replicas (
    id text NOT NULL COLLATE pg_catalog."C",
    last_seen bigint NOT NULL
);
CREATE TABLE public.resources (
    id text NOT NULL COLLATE pg_catalog."C",
    network_id text NOT NULL COLLATE pg_catalog."C",
    name text NOT NULL COLLATE pg_catalog."C",
    description text NOT NULL COLLATE pg_catalog."C",
    address text NOT NULL COLLATE pg_catalog."C",
    kind text NOT NULL COLLATE pg_catalog."C",
    enabled boolean NOT NULL
);
CREATE TABLE public.route_groups (
    route_id text NOT NULL COLLATE pg_catalog."C",
    role bigint NOT NULL,
    group_id text NOT NULL COLLATE pg_catalog."C"
);
CREATE TABLE public.router_groups (
    router_id text NOT NULL COLLATE pg_catalog."C",
    group_id text NOT NULL COLLATE pg_catalog."C"
);
CREATE TABLE public.routers (
    id text NOT NULL COLLATE pg_catalog."C",
    network_id text NOT NULL COLLATE pg_catalog."C",
    peer_id text COLLATE pg_catalog."C",
    metric bigint NOT NULL,
    masquerade boolean NOT NULL,
    enabled boolean NOT NULL
);
CREATE TABLE public.routes (
    id text NOT NULL COLLATE pg_catalog."C",
    network_id text NOT NULL COLLATE pg_catalog."C",
    description text NOT NULL COLLATE pg_catalog."C",
    network text NOT NULL COLLATE pg_catalog."C",
    peer_id text COLLATE pg_catalog."C",
    metric bigint NOT NULL,
    masquerade boolean NOT NULL,
    enabled boolean NOT NULL,
    keep_route boolean NOT NULL,
    skip_auto_apply boolean NOT NULL,
    slot bigint NOT NULL
);
CREATE TABLE public.rule_groups (
    rule_id text NOT NULL COLLATE pg_catalog."C",
    side bigint NOT NULL,
    "position" bigint NOT NULL,
    group_id text NOT NULL COLLATE pg_catalog."C"
);
CREATE TABLE public.rules (
    id text NOT NULL COLLATE pg_catalog."C",
    policy_id text NOT NULL COLLATE pg_catalog."C",
    "position" bigint NOT NULL,
    slot bigint NOT NULL,
    name text NOT NULL COLLATE pg_catalog."C",
    description text NOT NULL COLLATE pg_catalog."C",
    enabled boolean NOT NULL,
    action text NOT NULL COLLATE pg_catalog."C",
    bidirectional boolean NOT NULL,
    protocol text NOT NULL COLLATE pg_catalog."C",
    ports text NOT NULL COLLATE pg_catalog."C",
    port_ranges text NOT NULL COLLATE pg_catalog."C",
    authorized_groups text NOT NULL COLLATE pg_catalog."C",
    source_peer text COLLATE pg_catalog."C",
    source_resource text COLLATE pg_catalog."C",
    destination_peer text COLLATE pg_catalog."C",
    destination_resource text COLLATE pg_catalog."C"
);
CREATE TABLE public.sessions (
    id text NOT NULL COLLATE pg_catalog."C",
    user_id text NOT NULL COLLATE pg_catalog."C",
    hash bytea NOT NULL,
    created_at bigint NOT NULL,
    expires_at bigint NOT NULL,
    method text DEFAULT ''::text NOT NULL COLLATE pg_catalog."C",
    address text DEFAULT ''::text NOT NULL COLLATE pg_catalog."C",
    client text DEFAULT ''::text NOT NULL COLLATE pg_catalog."C",
    last_used bigint
);
CREATE TABLE public.setup_key_groups (
    setup_key_id text NOT NULL COLLATE pg_catalog."C",
    group_id text NOT NULL COLLATE pg_catalog."C"
);
CREATE TABLE public.setup_keys (
    id text NOT NULL COLLATE pg_catalog."C",
    name text NOT NULL COLLATE pg_catalog."C",
    hash bytea NOT NULL,
    masked text NOT NULL COLLATE pg_catalog."C",
    reusable boolean NOT NULL,
    created_at bigint NOT NULL,
    updated_at bigint NOT NULL,
    expires_at bigint,
    revoked boolean NOT NULL,
    used_times bigint NOT NULL,
    last_used bigint,
    usage_limit bigint NOT NULL,
    ephemeral boolean NOT NULL,
    allow_extra_dns_labels boolean NOT NULL
);
CREATE TABLE public.tokens (
    id text NOT NULL COLLATE pg_catalog."C",
    user_id text NOT NULL COLLATE pg_catalog."C",
    name text NOT NULL COLLATE pg_catalog."C",
    hash bytea NOT NULL,
    created_by text NOT NULL COLLATE pg_catalog."C",
    created_at bigint NOT NULL,
    expires_at bigint NOT NULL,
    last_used bigint
);
CREATE TABLE public.touched (
    seq bigint NOT NULL,
    kind text NOT NULL COLLATE pg_catalog."C",
    id text NOT NULL COLLATE pg_catalog."C",
    member text NOT NULL COLLATE pg_catalog."C",
    tx bigint DEFAULT ((pg_current_xact_id())::text)::bigint NOT NULL
);
ALTER TABLE public.touched ALTER COLUMN seq ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME public.touched_seq_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);
CREATE TABLE public.user_groups (
    user_id text NOT NULL COLLATE pg_catalog."C",
    group_id text NOT NULL COLLATE pg_catalog."C"
);
CREATE TABLE public.users (
    id text NOT NULL COLLATE pg_catalog."C",
    name text NOT NULL COLLATE pg_catalog."C",
    email text NOT NULL COLLATE pg_catalog."C",
    role text NOT NULL COLLATE pg_catalog."C",
    is_service_user boolean NOT NULL,
    blocked boolean NOT NULL,
    invited boolean NOT NULL,
    created_at bigint NOT NULL,
    last_login bigint,
    issuer text DEFAULT ''::text NOT NULL COLLATE pg_catalog."C",
    subject text DEFAULT ''::text NOT NULL COLLATE pg_catalog."C",
    pending_approval boolean DEFAULT false NOT NULL,
    groups_at bigint DEFAULT 0 NOT NULL
);
CREATE TABLE public.zone_groups (
    zone_id text NOT NULL COLLATE pg_catalog."C",
    group_id text NOT NULL COLLATE pg_catalog."C"
);
CREATE TABLE public.zones (
    id text NOT NULL COLLATE pg_catalog."C",
    name text NOT NULL COLLATE pg_catalog."C",
    domain text NOT NULL COLLATE pg_catalog."C",
    enabled boolean NOT NULL,
    enable_search_domain boolean NOT NULL
);
INSERT INTO public._sqlx_migrations VALUES (1, 'account', '2026-11-22 13:51:43.05909+00', true, '\x0b46be0e5b4463d09abb4774d67e7328c2333fde8d106fcb49924ee97637ddd69ea3997ee40d15a6a60946e68f8e99e3', 110289986);
INSERT INTO public._sqlx_migrations VALUES (2, 'replicas', '2026-11-22 14:47:24.452445+00', true, '\x094ee544233527b76f640674bc65584017943e40c5638ca5822be83d8405552ad05a645e62459d8b75336fb1eff8854b', 22999320);
INSERT INTO public._sqlx_migrations VALUES (3, 'audit chain', '2026-11-22 19:15:26.841407+00', true, '\x89faf94ef3cf32321e3dd1433e55aef0f9e757c3c85ae2238d60610e78e42fa5a8a9942cd896755dcf7c538f7b3e3f97', 2844429);
INSERT INTO public._sqlx_migrations VALUES (4, 'routes dns', '2026-11-22 20:42:42+00', true, '\x385f51f38b0cf238b33d4b03d5dce8cb09c9550d32a24315778d088aba2972aacbcdbe07d7bcf0ae8b968b8bac0e7062', 3000000);
INSERT INTO public._sqlx_migrations VALUES (5, 'answers', '2026-11-22 20:58:21.320656+00', true, '\xaf9f4234b4541a1f22ed688aa3fc985fcb260f37c67f5d023f9647108a2195ac0e41209797636dbac11bf0ab5980618c', 1000000);
INSERT INTO public._sqlx_migrations VALUES (6, 'posture', '2026-11-22 21:17:26+00', true, '\xb9fedd90e951dbc4902d233d13925230e1d7c2437dd9c6415e6c82d0fc45c8f593294e4c64c601a22c04507593df1c72', 5000000);
INSERT INTO public._sqlx_migrations VALUES (7, 'policy revisions', '2026-11-22 20:00:00+00', true, '\xb2e799474e6c6044bc36c32c0afab5ae97cd4a31d7c0dac6bb590a5983540188f3b5f96d70b832c0a05f09d9b9bd1202', 1000000);
INSERT INTO public._sqlx_migrations VALUES (8, 'identity', '2026-11-22 20:00:00+00', true, '\x09cad4293ce1b6abec0fc1d43564b9584a75c7d3ce2de35240d3602652d7a9e474dcecdb06506b26f50542cc74a45758', 1000000);
INSERT INTO public._sqlx_migrations VALUES (9, 'groups at', '2026-11-22 23:30:14+00', true, '\xe71ea81c75eb92ee6775f207138e394dcea9af0ab6659843c6147a8f98a1ba2faa527d54903d9a39b5d8d4bcd8676760', 5000000);
INSERT INTO public._sqlx_migrations VALUES (10, 'touched', '2026-11-22 20:00:00+00', true, '\xe2516297468bb19a253f7fb12ee0dff02e75233f36ee3eec87f37440bcb0a20f19d3efbaa76fa173640fa9d52e9b90c3', 1000000);
INSERT INTO public._sqlx_migrations VALUES (11, 'local users', '2026-11-22 20:00:00+00', true, '\x39c66baa0376cb499ad909ff9b22b7b342b682bf3458d0517d0670db1af7d523d8cc87f3f47bc9886c3cc9a00808169c', 1000000);
INSERT INTO public._sqlx_migrations VALUES (12, 'join keys', '2026-11-22 20:00:00+00', true, '\x7e8ebd9fca6b9c520032c605edd7aa8f95269b236dd12d47d992d4a9aa209d422a19470b2aa8976faf92c6653d8fb47d', 1000000);
INSERT INTO public._sqlx_migrations VALUES (13, 'session facts', '2026-11-22 20:00:00+00', true, '\x29ae10e998b4c6fe4c578463b0748f3788dd030489a3b7455cc93da5a3ffcdbf811931b95b9fb4e4ff49e5957e7404c8', 1000000);
INSERT INTO public.account VALUES (1, 'dc1f6rvuc2ht6rg38rcg', '', 1795355503226, 'dc1f6rvuc2ht6rg38rd0', 9, '{"peer_login_expiration_enabled":true,"peer_login_expiration":86400,"peer_inactivity_expiration_enabled":false,"peer_inactivity_expiration":600,"regular_users_view_blocked":true,"groups_propagation_enabled":true,"jwt_groups_enabled":false,"jwt_groups_claim_name":"","jwt_allow_groups":[],"routing_peer_dns_resolution_enabled":true,"dns_domain":"","network_range":"100.81.0.0/16","network_range_v6":"fd8c:b24d:722:ad74::/64","peer_expose_enabled":false,"peer_expose_groups":[],"extra":{"peer_approval_enabled":false,"user_approval_required":false,"network_traffic_logs_enabled":true,"network_traffic_logs_groups":[],"network_traffic_packet_counter_enabled":true},"lazy_connection_enabled":false,"auto_update_version":"disabled","auto_update_always":false,"ipv6_enabled_groups":["dc1f6rvuc2ht6rg38rdg"]}', 'fda5fb038f3fdf9e51d2d87c0cfe2b4046ece2f3a1aa46df7c313442661c1fe2');
INSERT INTO public.audit_chain VALUES (1, 11, '713dd81eac126f1143d089354b45436a20eba0e15b47c11cfd417bc0ec8dba60', 0, '0000000000000000000000000000000000000000000000000000000000000000', 0);
INSERT INTO public.events VALUES (1, 1795355503226, 1, 'account.create', 'sys', 'system', '', 'dc1f6rvuc2ht6rg38rcg', '{}', '0000000000000000000000000000000000000000000000000000000000000000', '55fd16753095dc910957781c2a2b270084246677237e777218a483c23c4ad376');
INSERT INTO public.events VALUES (2, 1795355503226, 1, 'service.user.create', 'sys', 'system', '', 'dc1f6rvuc2ht6rg38rd0', '{"name":"bootstrap"}', '55fd16753095dc910957781c2a2b270084246677237e777218a483c23c4ad376', '67aec197a633385e7fc84b78a0b78254eaeb9d7d63c3e96d550d03fb6f5f893b');
INSERT INTO public.events VALUES (3, 1795355503226, 1, 'personal.access.token.create', 'sys', 'system', '', 'dc1f6rvuc2ht6rg38re0', '{"name":"bootstrap"}', '67aec197a633385e7fc84b78a0b78254eaeb9d7d63c3e96d550d03fb6f5f893b', '89897ca31c080accec396d78295ec3b323f2f25a72d812739644c42110edfd5d');
INSERT INTO public.events VALUES (4, 1795355504220, 2, 'group.add', 'dc1f6rvuc2ht6rg38rd0', 'bootstrap', '', 'dc1f6s7uc2ht6rg38rfg', '{"after":"{\"id\":\"dc1f6s7uc2ht6rg38rfg\",\"name\":\"ops\",\"issued\":\"api\",\"built_in\":false,\"peers\":[],\"resources\":[]}","name":"ops"}', '89897ca31c080accec396d78295ec3b323f2f25a72d812739644c42110edfd5d', '51af30e7ce9ed7b3b307ae8ce5706839579ff2a936fe2078168fcf0ce11a59b7');
INSERT INTO public.events VALUES (5, 1795355505312, 3, 'setupkey.add', 'dc1f6rvuc2ht6rg38rd0', 'bootstrap', '', 'dc1f6sfuc2ht6rg38rg0', '{"after":"{\"id\":\"dc1f6sfuc2ht6rg38rg0\",\"name\":\"site\",\"masked\":\"76D9A*******************************\",\"reusable\":true,\"created_at\":1795355505312,\"updated_at\":1795355505312,\"expires_at\":1795441905312,\"revoked\":false,\"used_times\":0,\"last_used\":null,\"usage_limit\":0,\"ephemeral\":false,\"allow_extra_dns_labels\":false,\"auto_groups\":[]}","name":"site"}', '51af30e7ce9ed7b3b307ae8ce5706839579ff2a936fe2078168fcf0ce11a59b7', 'cbc94a0376be31b25f8a7b3d4ee74c73babf9e11d67a0013166a43d3b8188fbc');
INSERT INTO public.events VALUES (6, 1795355506481, 4, 'peer.setupkey.add', 'dc1f6sfuc2ht6rg38rg0', 'site', '', 'dc1f6snuc2ht6rg38rgg', '{"after":"{\"id\":\"dc1f6snuc2ht6rg38rgg\",\"name\":\"gw-1\",\"hostname\":\"gw-1\",\"dns_label\":\"gw-1\",\"role\":\"gateway\",\"ip\":\"100.81.154.239\",\"ipv6\":\"fd8c:b24d:722:ad74:8c46:981a:a3a4:bded\",\"endpoint\":null,\"connection_ip\":\"127.0.0.1\",\"os\":\"linux\",\"kernel_version\":\"6.12.0\",\"version\":\"0.1.0\",\"created_at\":1795355506481,\"last_seen\":1795355506481,\"last_login\":1795355506481,\"connected\":false,\"ephemeral\":false,\"approval_required\":false,\"ssh_enabled\":false,\"login_expiration_enabled\":false,\"inactivity_expiration_enabled\":false,\"groups\":[{\"id\":\"dc1f6rvuc2ht6rg38rdg\",\"name\":\"All\"}]}","name":"gw-1","setup_key_name":"site"}', 'cbc94a0376be31b25f8a7b3d4ee74c73babf9e11d67a0013166a43d3b8188fbc', 'f98daa92170ef53d1f0cb17319f2356beec3bcb0e466394899aa656878a3de11');
INSERT INTO public.events VALUES (7, 1795355507850, 5, 'network.create', 'dc1f6rvuc2ht6rg38rd0', 'bootstrap', '', 'dc1f6svuc2ht6rg38rh0', '{"after":"{\"id\":\"dc1f6svuc2ht6rg38rh0\",\"name\":\"site\",\"description\":\"\",\"routers\":[],\"resources\":[],\"policies\":[],\"routing_peers\":0}","name":"site"}', 'f98daa92170ef53d1f0cb17319f2356beec3bcb0e466394899aa656878a3de11', 'ab583e469fde58fa39b85acfb8d0803ed11a0ce846d11d303c3a61b75d62355f');
INSERT INTO public.events VALUES (8, 1795355508997, 6, 'network.resource.create', 'dc1f6rvuc2ht6rg38rd0', 'bootstrap', '', 'dc1f6t7uc2ht6rg38rhg', '{"after":"{\"id\":\"dc1f6t7uc2ht6rg38rhg\",\"network_id\":\"dc1f6svuc2ht6rg38rh0\",\"name\":\"db\",\"description\":\"\",\"address\":\"10.0.0.5\",\"kind\":\"host\",\"enabled\":true,\"groups\":[{\"id\":\"dc1f6s7uc2ht6rg38rfg\",\"name\":\"ops\"}]}","name":"db","network_name":"site"}', 'ab583e469fde58fa39b85acfb8d0803ed11a0ce846d11d303c3a61b75d62355f', 'd419e1f78111c3072244b50f73274830e196c5a960678c7a033c664fdb9d5a01');
INSERT INTO public.events VALUES (9, 1795355510562, 7, 'network.router.create', 'dc1f6rvuc2ht6rg38rd0', 'bootstrap', '', 'dc1f6tnuc2ht6rg38ri0', '{"after":"{\"id\":\"dc1f6tnuc2ht6rg38ri0\",\"network_id\":\"dc1f6svuc2ht6rg38rh0\",\"peer\":\"dc1f6snuc2ht6rg38rgg\",\"peer_groups\":[],\"metric\":100,\"masquerade\":true,\"enabled\":true}","network_name":"site"}', 'd419e1f78111c3072244b50f73274830e196c5a960678c7a033c664fdb9d5a01', '5e916b47bfea1327f437cbe162b3469561b9605fed658733edaf5c5b7ade0ca2');
INSERT INTO public.events VALUES (10, 1795355510813, 8, 'policy.add', 'dc1f6rvuc2ht6rg38rd0', 'bootstrap', '', 'dc1f6tnuc2ht6rg38rig', '{"after":"{\"id\":\"dc1f6tnuc2ht6rg38rig\",\"name\":\"database\",\"description\":\"\",\"enabled\":true,\"rules\":[{\"id\":\"dc1f6tnuc2ht6rg38rj0\",\"slot\":1,\"name\":\"r\",\"description\":\"\",\"enabled\":true,\"action\":\"accept\",\"bidirectional\":false,\"protocol\":\"tcp\",\"ports\":[5432],\"port_ranges\":[],\"authorized_groups\":{},\"sources\":{\"groups\":[\"dc1f6s7uc2ht6rg38rfg\"]},\"destinations\":{\"groups\":[\"dc1f6s7uc2ht6rg38rfg\"]}}]}","name":"database"}', '5e916b47bfea1327f437cbe162b3469561b9605fed658733edaf5c5b7ade0ca2', 'b73850a3a3f2842a1dd36f9f99ff573c8d5b89317f1a8055fd26a4a3406f3b4a');
INSERT INTO public.events VALUES (11, 1795355511044, 9, 'group.update', 'dc1f6rvuc2ht6rg38rd0', 'bootstrap', '', 'dc1f6s7uc2ht6rg38rfg', '{"after":"{\"id\":\"dc1f6s7uc2ht6rg38rfg\",\"name\":\"ops\",\"issued\":\"api\",\"built_in\":false,\"peers\":[{\"id\":\"dc1f6snuc2ht6rg38rgg\",\"name\":\"gw-1\"}],\"resources\":[{\"id\":\"dc1f6t7uc2ht6rg38rhg\",\"kind\":\"host\"}]}","before":"{\"id\":\"dc1f6s7uc2ht6rg38rfg\",\"name\":\"ops\",\"issued\":\"api\",\"built_in\":false,\"peers\":[],\"resources\":[{\"id\":\"dc1f6t7uc2ht6rg38rhg\",\"kind\":\"host\"}]}","name":"ops"}', 'b73850a3a3f2842a1dd36f9f99ff573c8d5b89317f1a8055fd26a4a3406f3b4a', '713dd81eac126f1143d089354b45436a20eba0e15b47c11cfd417bc0ec8dba60');
INSERT INTO public.group_peers VALUES ('dc1f6rvuc2ht6rg38rdg', 'dc1f6snuc2ht6rg38rgg');
INSERT INTO public.group_peers VALUES ('dc1f6s7uc2ht6rg38rfg', 'dc1f6snuc2ht6rg38rgg');
INSERT INTO public.group_resources VALUES ('dc1f6s7uc2ht6rg38rfg', 'dc1f6t7uc2ht6rg38rhg');
INSERT INTO public.groups VALUES ('dc1f6rvuc2ht6rg38rdg', 'All', 'api', true);
INSERT INTO public.groups VALUES ('dc1f6s7uc2ht6rg38rfg', 'ops', 'api', false);
INSERT INTO public.networks VALUES ('dc1f6svuc2ht6rg38rh0', 'site', '');
INSERT INTO public.peers VALUES ('dc1f6snuc2ht6rg38rgg', '\xe2f8c3ba3230ecae2a71c6148e79677b67468a2517e4946583846e3a5267b253', '\x6fa6ada8aa35176d8056610dc619886a3da627fa8b179a1c5fb48a2d02c1d976', 'dc1f6sfuc2ht6rg38rg0', 'gateway', 'gw-1', 'gw-1', 'gw-1', '100.81.154.239', 'fd8c:b24d:722:ad74:8c46:981a:a3a4:bded', NULL, '127.0.0.1', 'linux', '6.12.0', '0.1.0', 1795355506481, 1795355506481, 1795355506481, false, false, false, false, false, false, '', '', '');
INSERT INTO public.policies VALUES ('dc1f6rvuc2ht6rg38reg', 'Default', 'Made with the account; switch it off once there are policies of your own', true, NULL, NULL, '');
INSERT INTO public.policies VALUES ('dc1f6tnuc2ht6rg38rig', 'database', '', true, NULL, NULL, '');
INSERT INTO public.resources VALUES ('dc1f6t7uc2ht6rg38rhg', 'dc1f6svuc2ht6rg38rh0', 'db', '', '10.0.0.5', 'host', true);
INSERT INTO public.routers VALUES ('dc1f6tnuc2ht6rg38ri0', 'dc1f6svuc2ht6rg38rh0', 'dc1f6snuc2ht6rg38rgg', 100, true, true);
INSERT INTO public.rule_groups VALUES ('dc1f6rvuc2ht6rg38rf0', 0, 0, 'dc1f6rvuc2ht6rg38rdg');
INSERT INTO public.rule_groups VALUES ('dc1f6rvuc2ht6rg38rf0', 1, 0, 'dc1f6rvuc2ht6rg38rdg');
INSERT INTO public.rule_groups VALUES ('dc1f6tnuc2ht6rg38rj0', 0, 0, 'dc1f6s7uc2ht6rg38rfg');
INSERT INTO public.rule_groups VALUES ('dc1f6tnuc2ht6rg38rj0', 1, 0, 'dc1f6s7uc2ht6rg38rfg');
INSERT INTO public.rules VALUES ('dc1f6rvuc2ht6rg38rf0', 'dc1f6rvuc2ht6rg38reg', 0, 0, 'Default', 'Every peer may open any flow to every other peer', true, 'accept', true, 'all', '[]', '[]', '{}', NULL, NULL, NULL, NULL);
INSERT INTO public.rules VALUES ('dc1f6tnuc2ht6rg38rj0', 'dc1f6tnuc2ht6rg38rig', 0, 1, 'r', '', true, 'accept', false, 'tcp', '[5432]', '[]', '{}', NULL, NULL, NULL, NULL);
INSERT INTO public.setup_keys VALUES ('dc1f6sfuc2ht6rg38rg0', 'site', '\x77938071ba593bc15641eb3049b8fe6cc1aaf9227bb42bfc47fa04c75093d6de', '76D9A*******************************', true, 1795355505312, 1795355505312, 1795441905312, false, 1, 1795355506481, 0, false, false);
INSERT INTO public.tokens VALUES ('dc1f6rvuc2ht6rg38re0', 'dc1f6rvuc2ht6rg38rd0', 'bootstrap', '\x4ef83dbf03b1a726ce59aed30c2db20ea88db6575c965712826acc3a79f619cd', 'dc1f6rvuc2ht6rg38rd0', 1795355503226, 1826891503226, 1795355504204);
INSERT INTO public.users VALUES ('dc1f6rvuc2ht6rg38rd0', 'bootstrap', '', 'owner', true, false, false, 1795355503226, NULL, '', '', false, 0);
SELECT pg_catalog.setval('public.touched_seq_seq', 1, false);
ALTER TABLE ONLY public._sqlx_migrations
    ADD CONSTRAINT _sqlx_migrations_pkey PRIMARY KEY (version);
ALTER TABLE ONLY public.account
    ADD CONSTRAINT account_pkey PRIMARY KEY (only_one);
ALTER TABLE ONLY public.answers
    ADD CONSTRAINT answers_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.audit_chain
    ADD CONSTRAINT audit_chain_pkey PRIMARY KEY (only_one);
ALTER TABLE ONLY public.credentials
    ADD CONSTRAINT credentials_login_key UNIQUE (login);
ALTER TABLE ONLY public.credentials
    ADD CONSTRAINT credentials_pkey PRIMARY KEY (user_id);
ALTER TABLE ONLY public.dns_disabled_groups
    ADD CONSTRAINT dns_disabled_groups_pkey PRIMARY KEY (group_id);
ALTER TABLE ONLY public.events
    ADD CONSTRAINT events_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.group_peers
    ADD CONSTRAINT group_peers_pkey PRIMARY KEY (group_id, peer_id);
ALTER TABLE ONLY public.group_resources
    ADD CONSTRAINT group_resources_pkey PRIMARY KEY (group_id, resource_id);
ALTER TABLE ONLY public.groups
    ADD CONSTRAINT groups_name_key UNIQUE (name);
ALTER TABLE ONLY public.groups
    ADD CONSTRAINT groups_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.invite_groups
    ADD CONSTRAINT invite_groups_pkey PRIMARY KEY (invite_id, group_id);
ALTER TABLE ONLY public.invites
    ADD CONSTRAINT invites_hash_key UNIQUE (hash);
ALTER TABLE ONLY public.invites
    ADD CONSTRAINT invites_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.join_keys
    ADD CONSTRAINT join_keys_pkey PRIMARY KEY (hash);
ALTER TABLE ONLY public.nameserver_group_groups
    ADD CONSTRAINT nameserver_group_groups_pkey PRIMARY KEY (nameserver_group_id, group_id);
ALTER TABLE ONLY public.nameserver_groups
    ADD CONSTRAINT nameserver_groups_name_key UNIQUE (name);
ALTER TABLE ONLY public.nameserver_groups
    ADD CONSTRAINT nameserver_groups_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.networks
    ADD CONSTRAINT networks_name_key UNIQUE (name);
ALTER TABLE ONLY public.networks
    ADD CONSTRAINT networks_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.password_attempts
    ADD CONSTRAINT password_attempts_pkey PRIMARY KEY (login_hash);
ALTER TABLE ONLY public.peer_facts
    ADD CONSTRAINT peer_facts_pkey PRIMARY KEY (peer_id);
ALTER TABLE ONLY public.peers
    ADD CONSTRAINT peers_dns_label_key UNIQUE (dns_label);
ALTER TABLE ONLY public.peers
    ADD CONSTRAINT peers_ip_key UNIQUE (ip);
ALTER TABLE ONLY public.peers
    ADD CONSTRAINT peers_ipv6_key UNIQUE (ipv6);
ALTER TABLE ONLY public.peers
    ADD CONSTRAINT peers_name_key UNIQUE (name);
ALTER TABLE ONLY public.peers
    ADD CONSTRAINT peers_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.peers
    ADD CONSTRAINT peers_wireguard_key_key UNIQUE (wireguard_key);
ALTER TABLE ONLY public.policies
    ADD CONSTRAINT policies_name_key UNIQUE (name);
ALTER TABLE ONLY public.policies
    ADD CONSTRAINT policies_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.policy_posture_checks
    ADD CONSTRAINT policy_posture_checks_pkey PRIMARY KEY (policy_id, check_id);
ALTER TABLE ONLY public.policy_revisions
    ADD CONSTRAINT policy_revisions_pkey PRIMARY KEY (number);
ALTER TABLE ONLY public.posture_checks
    ADD CONSTRAINT posture_checks_name_key UNIQUE (name);
ALTER TABLE ONLY public.posture_checks
    ADD CONSTRAINT posture_checks_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.records
    ADD CONSTRAINT records_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.replicas
    ADD CONSTRAINT replicas_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.resources
    ADD CONSTRAINT resources_name_key UNIQUE (name);
ALTER TABLE ONLY public.resources
    ADD CONSTRAINT resources_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.route_groups
    ADD CONSTRAINT route_groups_pkey PRIMARY KEY (route_id, role, group_id);
ALTER TABLE ONLY public.router_groups
    ADD CONSTRAINT router_groups_pkey PRIMARY KEY (router_id, group_id);
ALTER TABLE ONLY public.routers
    ADD CONSTRAINT routers_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.routes
    ADD CONSTRAINT routes_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.routes
    ADD CONSTRAINT routes_slot_key UNIQUE (slot);
ALTER TABLE ONLY public.rule_groups
    ADD CONSTRAINT rule_groups_pkey PRIMARY KEY (rule_id, side, group_id);
ALTER TABLE ONLY public.rules
    ADD CONSTRAINT rules_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.rules
    ADD CONSTRAINT rules_slot_key UNIQUE (slot);
ALTER TABLE ONLY public.sessions
    ADD CONSTRAINT sessions_hash_key UNIQUE (hash);
ALTER TABLE ONLY public.sessions
    ADD CONSTRAINT sessions_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.setup_key_groups
    ADD CONSTRAINT setup_key_groups_pkey PRIMARY KEY (setup_key_id, group_id);
ALTER TABLE ONLY public.setup_keys
    ADD CONSTRAINT setup_keys_hash_key UNIQUE (hash);
ALTER TABLE ONLY public.setup_keys
    ADD CONSTRAINT setup_keys_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.tokens
    ADD CONSTRAINT tokens_hash_key UNIQUE (hash);
ALTER TABLE ONLY public.tokens
    ADD CONSTRAINT tokens_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.touched
    ADD CONSTRAINT touched_pkey PRIMARY KEY (seq);
ALTER TABLE ONLY public.user_groups
    ADD CONSTRAINT user_groups_pkey PRIMARY KEY (user_id, group_id);
ALTER TABLE ONLY public.users
    ADD CONSTRAINT users_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.zone_groups
    ADD CONSTRAINT zone_groups_pkey PRIMARY KEY (zone_id, group_id);
ALTER TABLE ONLY public.zones
    ADD CONSTRAINT zones_domain_key UNIQUE (domain);
ALTER TABLE ONLY public.zones
    ADD CONSTRAINT zones_pkey PRIMARY KEY (id);
CREATE INDEX answers_at ON public.answers USING btree (at);
CREATE INDEX group_peers_peer ON public.group_peers USING btree (peer_id);
CREATE INDEX group_resources_resource ON public.group_resources USING btree (resource_id);
CREATE INDEX join_keys_user ON public.join_keys USING btree (user_id);
CREATE INDEX nameserver_group_groups_group ON public.nameserver_group_groups USING btree (group_id);
CREATE INDEX password_attempts_at ON public.password_attempts USING btree (failed_at);
CREATE INDEX peers_user ON public.peers USING btree (user_id) WHERE (user_id <> ''::text);
CREATE INDEX policy_posture_checks_check ON public.policy_posture_checks USING btree (check_id);
CREATE INDEX records_zone ON public.records USING btree (zone_id);
CREATE INDEX resources_network ON public.resources USING btree (network_id);
CREATE INDEX route_groups_group ON public.route_groups USING btree (group_id);
CREATE INDEX router_groups_group ON public.router_groups USING btree (group_id);
CREATE INDEX routers_network ON public.routers USING btree (network_id);
CREATE INDEX routers_peer ON public.routers USING btree (peer_id);
CREATE INDEX routes_network ON public.routes USING btree (network);
CREATE INDEX routes_peer ON public.routes USING btree (peer_id);
CREATE INDEX rule_groups_group ON public.rule_groups USING btree (group_id);
CREATE INDEX rules_destination_peer ON public.rules USING btree (destination_peer);
CREATE INDEX rules_destination_resource ON public.rules USING btree (destination_resource);
CREATE INDEX rules_policy ON public.rules USING btree (policy_id, "position");
CREATE INDEX rules_source_peer ON public.rules USING btree (source_peer);
CREATE INDEX rules_source_resource ON public.rules USING btree (source_resource);
CREATE INDEX sessions_user ON public.sessions USING btree (user_id);
CREATE INDEX setup_key_groups_group ON public.setup_key_groups USING btree (group_id);
CREATE INDEX tokens_user ON public.tokens USING btree (user_id);
CREATE INDEX touched_tx ON public.touched USING btree (tx);
CREATE INDEX user_groups_group ON public.user_groups USING btree (group_id);
CREATE INDEX users_email ON public.users USING btree (email) WHERE (email <> ''::text);
CREATE UNIQUE INDEX users_subject ON public.users USING btree (issuer, subject) WHERE (subject <> ''::text);
CREATE INDEX zone_groups_group ON public.zone_groups USING btree (group_id);
CREATE TRIGGER touched AFTER INSERT OR DELETE OR UPDATE ON public.group_peers FOR EACH ROW EXECUTE FUNCTION public.touch('member', 'group_id', 'peer_id');
CREATE TRIGGER touched AFTER INSERT OR DELETE OR UPDATE ON public.group_resources FOR EACH ROW EXECUTE FUNCTION public.touch('holds', 'group_id');
CREATE TRIGGER touched AFTER INSERT OR DELETE OR UPDATE ON public.groups FOR EACH ROW EXECUTE FUNCTION public.touch('group', 'id');
CREATE TRIGGER touched AFTER INSERT OR DELETE OR UPDATE ON public.networks FOR EACH ROW EXECUTE FUNCTION public.touch('network', 'id');
CREATE TRIGGER touched AFTER INSERT OR DELETE OR UPDATE ON public.peer_facts FOR EACH ROW EXECUTE FUNCTION public.touch('peer', 'peer_id');
CREATE TRIGGER touched AFTER INSERT OR DELETE ON public.peers FOR EACH ROW EXECUTE FUNCTION public.touch('peer', 'id');
CREATE TRIGGER touched AFTER INSERT OR DELETE OR UPDATE ON public.policies FOR EACH ROW EXECUTE FUNCTION public.touch('policy', 'id');
CREATE TRIGGER touched AFTER INSERT OR DELETE OR UPDATE ON public.policy_posture_checks FOR EACH ROW EXECUTE FUNCTION public.touch('policy', 'policy_id');
CREATE TRIGGER touched AFTER INSERT OR DELETE OR UPDATE ON public.posture_checks FOR EACH ROW EXECUTE FUNCTION public.touch('posture', 'id');
CREATE TRIGGER touched AFTER INSERT OR DELETE OR UPDATE ON public.resources FOR EACH ROW EXECUTE FUNCTION public.touch('network', 'network_id');
CREATE TRIGGER touched AFTER INSERT OR DELETE OR UPDATE ON public.route_groups FOR EACH ROW EXECUTE FUNCTION public.touch('route', 'route_id');
CREATE TRIGGER touched AFTER INSERT OR DELETE OR UPDATE ON public.router_groups FOR EACH ROW EXECUTE FUNCTION public.touch('router', 'router_id');
CREATE TRIGGER touched AFTER INSERT OR DELETE OR UPDATE ON public.routers FOR EACH ROW EXECUTE FUNCTION public.touch('network', 'network_id');
CREATE TRIGGER touched AFTER INSERT OR DELETE OR UPDATE ON public.routes FOR EACH ROW EXECUTE FUNCTION public.touch('route', 'id');
CREATE TRIGGER touched AFTER INSERT OR DELETE OR UPDATE ON public.rule_groups FOR EACH ROW EXECUTE FUNCTION public.touch('rule', 'rule_id');
CREATE TRIGGER touched AFTER INSERT OR DELETE OR UPDATE ON public.rules FOR EACH ROW EXECUTE FUNCTION public.touch('policy', 'policy_id');
CREATE TRIGGER touched AFTER INSERT OR DELETE ON public.users FOR EACH ROW EXECUTE FUNCTION public.touch('user', 'id');
CREATE TRIGGER touched_update AFTER UPDATE ON public.peers FOR EACH ROW WHEN (((old.id IS DISTINCT FROM new.id) OR (old.wireguard_key IS DISTINCT FROM new.wireguard_key) OR (old.role IS DISTINCT FROM new.role) OR (old.name IS DISTINCT FROM new.name) OR (old.ip IS DISTINCT FROM new.ip) OR (old.ipv6 IS DISTINCT FROM new.ipv6) OR (old.endpoint IS DISTINCT FROM new.endpoint) OR (old.connection_ip IS DISTINCT FROM new.connection_ip) OR (old.os IS DISTINCT FROM new.os) OR (old.kernel_version IS DISTINCT FROM new.kernel_version) OR (old.version IS DISTINCT FROM new.version) OR (old.approval_required IS DISTINCT FROM new.approval_required) OR (old.user_id IS DISTINCT FROM new.user_id) OR (old.expired IS DISTINCT FROM new.expired))) EXECUTE FUNCTION public.touch('peer', 'id');
CREATE TRIGGER touched_update AFTER UPDATE ON public.users FOR EACH ROW WHEN (((old.id IS DISTINCT FROM new.id) OR (old.blocked IS DISTINCT FROM new.blocked) OR (old.pending_approval IS DISTINCT FROM new.pending_approval))) EXECUTE FUNCTION public.touch('user', 'id');
ALTER TABLE ONLY public.credentials
    ADD CONSTRAINT credentials_user_id_fkey FOREIGN KEY (user_id) REFERENCES public.users(id) ON DELETE CASCADE;
ALTER TABLE ONLY public.dns_disabled_groups
    ADD CONSTRAINT dns_disabled_groups_group_id_fkey FOREIGN KEY (group_id) REFERENCES public.groups(id);
ALTER TABLE ONLY public.group_peers
    ADD CONSTRAINT group_peers_group_id_fkey FOREIGN KEY (group_id) REFERENCES public.groups(id) ON DELETE CASCADE;
ALTER TABLE ONLY public.group_peers
    ADD CONSTRAINT group_peers_peer_id_fkey FOREIGN KEY (peer_id) REFERENCES public.peers(id) ON DELETE CASCADE;
ALTER TABLE ONLY public.group_resources
    ADD CONSTRAINT group_resources_group_id_fkey FOREIGN KEY (group_id) REFERENCES public.groups(id);
ALTER TABLE ONLY public.group_resources
    ADD CONSTRAINT group_resources_resource_id_fkey FOREIGN KEY (resource_id) REFERENCES public.resources(id) ON DELETE CASCADE;
ALTER TABLE ONLY public.invite_groups
    ADD CONSTRAINT invite_groups_group_id_fkey FOREIGN KEY (group_id) REFERENCES public.groups(id) ON DELETE CASCADE;
ALTER TABLE ONLY public.invite_groups
    ADD CONSTRAINT invite_groups_invite_id_fkey FOREIGN KEY (invite_id) REFERENCES public.invites(id) ON DELETE CASCADE;
ALTER TABLE ONLY public.invites
    ADD CONSTRAINT invites_created_by_fkey FOREIGN KEY (created_by) REFERENCES public.users(id) ON DELETE CASCADE;
ALTER TABLE ONLY public.invites
    ADD CONSTRAINT invites_user_id_fkey FOREIGN KEY (user_id) REFERENCES public.users(id) ON DELETE CASCADE;
ALTER TABLE ONLY public.join_keys
    ADD CONSTRAINT join_keys_user_id_fkey FOREIGN KEY (user_id) REFERENCES public.users(id) ON DELETE CASCADE;
ALTER TABLE ONLY public.nameserver_group_groups
    ADD CONSTRAINT nameserver_group_groups_group_id_fkey FOREIGN KEY (group_id) REFERENCES public.groups(id);
ALTER TABLE ONLY public.nameserver_group_groups
    ADD CONSTRAINT nameserver_group_groups_nameserver_group_id_fkey FOREIGN KEY (nameserver_group_id) REFERENCES public.nameserver_groups(id) ON DELETE CASCADE;
ALTER TABLE ONLY public.peer_facts
    ADD CONSTRAINT peer_facts_peer_id_fkey FOREIGN KEY (peer_id) REFERENCES public.peers(id) ON DELETE CASCADE;
ALTER TABLE ONLY public.policy_posture_checks
    ADD CONSTRAINT policy_posture_checks_check_id_fkey FOREIGN KEY (check_id) REFERENCES public.posture_checks(id);
ALTER TABLE ONLY public.policy_posture_checks
    ADD CONSTRAINT policy_posture_checks_policy_id_fkey FOREIGN KEY (policy_id) REFERENCES public.policies(id) ON DELETE CASCADE;
ALTER TABLE ONLY public.records
    ADD CONSTRAINT records_zone_id_fkey FOREIGN KEY (zone_id) REFERENCES public.zones(id) ON DELETE CASCADE;
ALTER TABLE ONLY public.resources
    ADD CONSTRAINT resources_network_id_fkey FOREIGN KEY (network_id) REFERENCES public.networks(id) ON DELETE CASCADE;
ALTER TABLE ONLY public.route_groups
    ADD CONSTRAINT route_groups_group_id_fkey FOREIGN KEY (group_id) REFERENCES public.groups(id);
ALTER TABLE ONLY public.route_groups
    ADD CONSTRAINT route_groups_route_id_fkey FOREIGN KEY (route_id) REFERENCES public.routes(id) ON DELETE CASCADE;
ALTER TABLE ONLY public.router_groups
    ADD CONSTRAINT router_groups_group_id_fkey FOREIGN KEY (group_id) REFERENCES public.groups(id);
ALTER TABLE ONLY public.router_groups
    ADD CONSTRAINT router_groups_router_id_fkey FOREIGN KEY (router_id) REFERENCES public.routers(id) ON DELETE CASCADE;
ALTER TABLE ONLY public.routers
    ADD CONSTRAINT routers_network_id_fkey FOREIGN KEY (network_id) REFERENCES public.networks(id) ON DELETE CASCADE;
ALTER TABLE ONLY public.routers
    ADD CONSTRAINT routers_peer_id_fkey FOREIGN KEY (peer_id) REFERENCES public.peers(id);
ALTER TABLE ONLY public.routes
    ADD CONSTRAINT routes_peer_id_fkey FOREIGN KEY (peer_id) REFERENCES public.peers(id);
ALTER TABLE ONLY public.rule_groups
    ADD CONSTRAINT rule_groups_group_id_fkey FOREIGN KEY (group_id) REFERENCES public.groups(id);
ALTER TABLE ONLY public.rule_groups
    ADD CONSTRAINT rule_groups_rule_id_fkey FOREIGN KEY (rule_id) REFERENCES public.rules(id) ON DELETE CASCADE;
ALTER TABLE ONLY public.rules
    ADD CONSTRAINT rules_destination_peer_fkey FOREIGN KEY (destination_peer) REFERENCES public.peers(id);
ALTER TABLE ONLY public.rules
    ADD CONSTRAINT rules_destination_resource_fkey FOREIGN KEY (destination_resource) REFERENCES public.resources(id);
ALTER TABLE ONLY public.rules
    ADD CONSTRAINT rules_policy_id_fkey FOREIGN KEY (policy_id) REFERENCES public.policies(id) ON DELETE CASCADE;
ALTER TABLE ONLY public.rules
    ADD CONSTRAINT rules_source_peer_fkey FOREIGN KEY (source_peer) REFERENCES public.peers(id);
ALTER TABLE ONLY public.rules
    ADD CONSTRAINT rules_source_resource_fkey FOREIGN KEY (source_resource) REFERENCES public.resources(id);
ALTER TABLE ONLY public.sessions
    ADD CONSTRAINT sessions_user_id_fkey FOREIGN KEY (user_id) REFERENCES public.users(id) ON DELETE CASCADE;
ALTER TABLE ONLY public.setup_key_groups
    ADD CONSTRAINT setup_key_groups_group_id_fkey FOREIGN KEY (group_id) REFERENCES public.groups(id);
ALTER TABLE ONLY public.setup_key_groups
    ADD CONSTRAINT setup_key_groups_setup_key_id_fkey FOREIGN KEY (setup_key_id) REFERENCES public.setup_keys(id) ON DELETE CASCADE;
ALTER TABLE ONLY public.tokens
    ADD CONSTRAINT tokens_user_id_fkey FOREIGN KEY (user_id) REFERENCES public.users(id) ON DELETE CASCADE;
ALTER TABLE ONLY public.user_groups
    ADD CONSTRAINT user_groups_group_id_fkey FOREIGN KEY (group_id) REFERENCES public.groups(id);
ALTER TABLE ONLY public.user_groups
    ADD CONSTRAINT user_groups_user_id_fkey FOREIGN KEY (user_id) REFERENCES public.users(id) ON DELETE CASCADE;
ALTER TABLE ONLY public.zone_groups
    ADD CONSTRAINT zone_groups_group_id_fkey FOREIGN KEY (group_id) REFERENCES public.groups(id);
ALTER TABLE ONLY public.zone_groups
    ADD CONSTRAINT zone_groups_zone_id_fkey FOREIGN KEY (zone_id) REFERENCES public.zones(id) ON DELETE CASCADE;
