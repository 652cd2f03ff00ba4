//! Who may do what: one table of roles and parts of the API.

use std::collections::BTreeMap;

use axum::http::Method;

use crate::store::UserRole;

/// A part of the API that a role has a right to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Module {
    /// Account and settings.
    Settings,
    /// Users.
    Users,
    /// Personal access tokens.
    Pats,
    /// Setup keys.
    SetupKeys,
    /// Groups.
    Groups,
    /// Peers.
    Peers,
    /// What gateways enforce and count: of everybody's traffic, so it is nobody's own.
    Gateways,
    /// Policies, posture checks, and explaining them.
    Policies,
    /// Networks, resources and routers.
    Networks,
    /// Routes.
    Routes,
    /// Zones, and whose resolvers are managed.
    Dns,
    /// Nameserver groups.
    Nameservers,
    /// Audit and flow events.
    Events,
}

/// How far a right goes; each includes those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Right {
    /// Not at all.
    Nothing,
    /// What is the user's own, which the handler narrows to.
    Own,
    /// Read everything.
    Read,
    /// Change everything.
    Write,
}

/// Paths by their beginnings; the longest that fits decides, and a path that is not here is nobody's.
const PATHS: [(&str, Module); 31] = [
    ("/api/accounts", Module::Settings),
    ("/api/agent-network", Module::Networks),
    ("/api/break-glass", Module::Policies),
    ("/api/events", Module::Events),
    ("/api/explain", Module::Policies),
    ("/api/flows", Module::Events),
    ("/api/gateways", Module::Gateways),
    ("/api/groups", Module::Groups),
    ("/api/identity-providers", Module::Settings),
    ("/api/ingress", Module::Peers),
    ("/api/locations", Module::Policies),
    ("/api/login/device", Module::Pats),
    ("/api/login/machine", Module::Pats),
    ("/api/logout", Module::Pats),
    ("/api/networks", Module::Networks),
    ("/api/peers", Module::Peers),
    ("/api/peers/{peerId}/login", Module::Pats),
    ("/api/policies", Module::Policies),
    ("/api/posture-checks", Module::Policies),
    ("/api/routes", Module::Routes),
    ("/api/dns", Module::Dns),
    ("/api/dns/nameservers", Module::Nameservers),
    ("/api/reverse-proxies", Module::Networks),
    ("/api/policy-file", Module::Policies),
    ("/api/setup-keys", Module::SetupKeys),
    ("/api/users", Module::Users),
    ("/api/users/current", Module::Pats),
    ("/api/users/{userId}/password", Module::Pats),
    ("/api/users/{userId}/sessions", Module::Pats),
    ("/api/users/{userId}/tokens", Module::Pats),
    ("/api/users/{userId}/totp", Module::Pats),
];

const MODULES: [(Module, &str); 13] = [
    (Module::Settings, "settings"),
    (Module::Users, "users"),
    (Module::Pats, "pats"),
    (Module::SetupKeys, "setup_keys"),
    (Module::Groups, "groups"),
    (Module::Peers, "peers"),
    (Module::Gateways, "gateways"),
    (Module::Policies, "policies"),
    (Module::Networks, "networks"),
    (Module::Routes, "routes"),
    (Module::Dns, "dns"),
    (Module::Nameservers, "nameservers"),
    (Module::Events, "events"),
];

/// The table.
pub fn right(role: UserRole, module: Module) -> Right {
    use Module::*;
    match (role, module) {
        (UserRole::Owner | UserRole::Admin, _) => Right::Write,
        (UserRole::NetworkAdmin, Networks | Groups | Policies | Routes | Dns | Nameservers) => Right::Write,
        // Everybody has tokens of their own, and never those of others.
        (UserRole::NetworkAdmin | UserRole::Auditor | UserRole::User, Pats) => Right::Own,
        (UserRole::NetworkAdmin | UserRole::Auditor, _) => Right::Read,
        (UserRole::User, Peers | Users) => Right::Own,
        (UserRole::User, _) => Right::Nothing,
    }
}

/// Requests that carry more than an address does and change nothing: whoever may read may ask.
const QUESTIONS: [&str; 3] = ["/api/policy-file/plan", "/api/policy-file/suggest", "/api/policy-file/test"];

/// Whether a request changes nothing although its method says so.
pub(super) fn is_question(method: &Method, path: &str) -> bool {
    *method == Method::POST && QUESTIONS.contains(&path)
}

/// Whether a request whose body is known asks only what it would do.
pub(super) fn only_asks(path: &str, body: &[u8]) -> bool {
    #[derive(serde::Deserialize)]
    struct Wish {
        dry_run: bool,
    }
    path == "/api/policy-file/rollback" && serde_json::from_slice::<Wish>(body).is_ok_and(|wish| wish.dry_run)
}

/// The part of the API that a path belongs to.
fn module(path: &str) -> Option<Module> {
    let of = PATHS.iter().filter(|(prefix, _)| {
        path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    });
    of.max_by_key(|(prefix, _)| prefix.len()).map(|(_, module)| *module)
}

/// Whether the account's `regular_users_view_blocked` refuses the path to who has this right to it: what role `user` may see of
/// the account. The own user, tokens and logins are no view.
pub(super) fn is_view(right: Right, path: &str) -> bool {
    right == Right::Own && module(path) == Some(Module::Peers)
}

/// The right of a role to a request, or `None` if it is to be refused.
pub fn admits(role: UserRole, method: &Method, path: &str) -> Option<Right> {
    let module = module(path)?;
    let right = right(role, module);
    let enough = match *method {
        Method::GET | Method::HEAD => right >= Right::Own,
        _ if is_question(method, path) => right >= Right::Read,
        _ => right == Right::Write || (right == Right::Own && module == Module::Pats),
    };
    enough.then_some(right)
}

/// The table's column for a role, as NetBird's clients read it.
pub fn permissions(role: UserRole) -> BTreeMap<String, BTreeMap<String, bool>> {
    let operations = |right: Right| {
        let write = right == Right::Write;
        [("read", right >= Right::Read), ("create", write), ("update", write), ("delete", write)]
            .map(|(name, may)| (name.to_owned(), may))
            .into()
    };
    MODULES.iter().map(|(module, name)| ((*name).to_owned(), operations(right(role, *module)))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_path_decides_and_an_unknown_one_is_nobodys() {
        let get = |role, path| admits(role, &Method::GET, path);
        let post = |role, path| admits(role, &Method::POST, path);
        assert_eq!(post(UserRole::User, "/api/users"), None);
        assert_eq!(post(UserRole::User, "/api/users/{userId}/tokens"), Some(Right::Own));
        assert_eq!(get(UserRole::User, "/api/groups"), None);
        assert_eq!(get(UserRole::User, "/api/gateways/{id}/rules"), None);
        assert_eq!(get(UserRole::NetworkAdmin, "/api/gateways"), Some(Right::Read));
        assert_eq!(get(UserRole::Auditor, "/api/groups/{groupId}"), Some(Right::Read));
        assert_eq!(post(UserRole::Auditor, "/api/groups"), None);
        assert_eq!(post(UserRole::NetworkAdmin, "/api/networks/{networkId}/routers"), Some(Right::Write));
        assert_eq!(post(UserRole::NetworkAdmin, "/api/setup-keys"), None);
        assert_eq!(get(UserRole::Owner, "/api/elsewhere"), None);
        assert_eq!(get(UserRole::Owner, "/api/groupsies"), None);
    }
}
