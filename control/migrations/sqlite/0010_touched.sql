-- What has changed, for whoever keeps the account in memory and follows it without reading all of it again (see
-- `store/state`). Triggers write it, so no statement that changes what is read there can be forgotten, whoever makes it. `kind` and
-- `id` say what is to be read anew; `member` is the peer that entered or left a group. Old lines are removed.

CREATE TABLE touched (
    seq    INTEGER PRIMARY KEY AUTOINCREMENT,
    kind   TEXT NOT NULL,
    id     TEXT NOT NULL,
    member TEXT NOT NULL
) STRICT;

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
