-- What has changed, for whoever keeps the account in memory and follows it without reading all of it again (see
-- `store/state`). Triggers write it, so no statement that changes what is read there can be forgotten, whoever makes it. `kind` and
-- `id` say what is to be read anew; `member` is the peer that entered or left a group. Old lines are removed. `tx` is
-- the transaction that wrote the line: one that began early may end late.

CREATE TABLE touched (
    seq    BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind   TEXT COLLATE "C" NOT NULL,
    id     TEXT COLLATE "C" NOT NULL,
    member TEXT COLLATE "C" NOT NULL,
    tx     BIGINT NOT NULL DEFAULT (pg_current_xact_id()::text::bigint)
);
CREATE INDEX touched_tx ON touched (tx);

-- Arguments: the kind, the column of the id, and that of the member if there is one.
CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS $$
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

CREATE TRIGGER touched AFTER INSERT OR DELETE ON peers
    FOR EACH ROW EXECUTE FUNCTION touch('peer', 'id');
CREATE TRIGGER touched_update AFTER UPDATE ON peers FOR EACH ROW
    WHEN ((OLD.id, OLD.wireguard_key, OLD.role, OLD.name, OLD.ip, OLD.ipv6, OLD.endpoint,
          OLD.connection_ip, OLD.os, OLD.kernel_version, OLD.version, OLD.approval_required, OLD.user_id,
          OLD.expired)
          IS DISTINCT FROM (NEW.id, NEW.wireguard_key, NEW.role, NEW.name, NEW.ip, NEW.ipv6, NEW.endpoint,
          NEW.connection_ip, NEW.os, NEW.kernel_version, NEW.version, NEW.approval_required, NEW.user_id,
          NEW.expired))
    EXECUTE FUNCTION touch('peer', 'id');

CREATE TRIGGER touched AFTER INSERT OR UPDATE OR DELETE ON peer_facts
    FOR EACH ROW EXECUTE FUNCTION touch('peer', 'peer_id');

CREATE TRIGGER touched AFTER INSERT OR DELETE ON users
    FOR EACH ROW EXECUTE FUNCTION touch('user', 'id');
CREATE TRIGGER touched_update AFTER UPDATE ON users FOR EACH ROW
    WHEN ((OLD.id, OLD.blocked, OLD.pending_approval)
          IS DISTINCT FROM (NEW.id, NEW.blocked, NEW.pending_approval))
    EXECUTE FUNCTION touch('user', 'id');

CREATE TRIGGER touched AFTER INSERT OR UPDATE OR DELETE ON groups
    FOR EACH ROW EXECUTE FUNCTION touch('group', 'id');

CREATE TRIGGER touched AFTER INSERT OR UPDATE OR DELETE ON group_peers
    FOR EACH ROW EXECUTE FUNCTION touch('member', 'group_id', 'peer_id');

CREATE TRIGGER touched AFTER INSERT OR UPDATE OR DELETE ON group_resources
    FOR EACH ROW EXECUTE FUNCTION touch('holds', 'group_id');

CREATE TRIGGER touched AFTER INSERT OR UPDATE OR DELETE ON networks
    FOR EACH ROW EXECUTE FUNCTION touch('network', 'id');

CREATE TRIGGER touched AFTER INSERT OR UPDATE OR DELETE ON resources
    FOR EACH ROW EXECUTE FUNCTION touch('network', 'network_id');

CREATE TRIGGER touched AFTER INSERT OR UPDATE OR DELETE ON routers
    FOR EACH ROW EXECUTE FUNCTION touch('network', 'network_id');

CREATE TRIGGER touched AFTER INSERT OR UPDATE OR DELETE ON router_groups
    FOR EACH ROW EXECUTE FUNCTION touch('router', 'router_id');

CREATE TRIGGER touched AFTER INSERT OR UPDATE OR DELETE ON policies
    FOR EACH ROW EXECUTE FUNCTION touch('policy', 'id');

CREATE TRIGGER touched AFTER INSERT OR UPDATE OR DELETE ON rules
    FOR EACH ROW EXECUTE FUNCTION touch('policy', 'policy_id');

CREATE TRIGGER touched AFTER INSERT OR UPDATE OR DELETE ON rule_groups
    FOR EACH ROW EXECUTE FUNCTION touch('rule', 'rule_id');

CREATE TRIGGER touched AFTER INSERT OR UPDATE OR DELETE ON policy_posture_checks
    FOR EACH ROW EXECUTE FUNCTION touch('policy', 'policy_id');

CREATE TRIGGER touched AFTER INSERT OR UPDATE OR DELETE ON routes
    FOR EACH ROW EXECUTE FUNCTION touch('route', 'id');

CREATE TRIGGER touched AFTER INSERT OR UPDATE OR DELETE ON route_groups
    FOR EACH ROW EXECUTE FUNCTION touch('route', 'route_id');

CREATE TRIGGER touched AFTER INSERT OR UPDATE OR DELETE ON posture_checks
    FOR EACH ROW EXECUTE FUNCTION touch('posture', 'id');
