//! Settings of the account that control's configuration decides, or that there is nothing here for: shown as they are, and not kept.

use super::error::ApiError;
use crate::app::App;
use crate::store::{DashboardFeatures, Settings};

/// What is stored, with what is not.
pub(super) fn filled_in(settings: Settings, app: &App) -> Settings {
    let built_in = app.identity.local_users().enabled;
    Settings {
        dashboard_features: Some(DashboardFeatures { agent_network: Some(false) }),
        embedded_idp_enabled: Some(built_in),
        local_auth_disabled: Some(!built_in),
        ..settings
    }
}

/// What is to be stored of an object that was put, unless it says otherwise of the rest than what is so. What is left out, or null, says
/// nothing.
pub(super) fn taken_out(mut settings: Settings, stored: &Settings, app: &App) -> Result<Settings, ApiError> {
    let built_in = app.identity.local_users().enabled;
    for (name, put, so) in [
        ("embedded_idp_enabled", settings.embedded_idp_enabled.take(), built_in),
        ("local_auth_disabled", settings.local_auth_disabled.take(), !built_in),
    ] {
        if put.is_some_and(|put| put != so) {
            return Err(ApiError::invalid(format!(
                "{name} is read-only, and is {so}: [local_users] enabled in control's configuration says whether there are built-in \
                 users; leave it {so}, or out"
            )));
        }
    }
    if settings.dashboard_features.take().and_then(|put| put.agent_network) == Some(true) {
        return Err(ApiError::invalid(
            "dashboard_features.agent_network is not supported: there is no dashboard here; leave it false, or out",
        ));
    }
    if settings.local_mfa_enabled && !stored.local_mfa_enabled && !built_in {
        return Err(ApiError::invalid(
            "local_mfa_enabled: there are no built-in users here: set [local_users] enabled in control's configuration first, or leave \
             it false",
        ));
    }
    Ok(settings)
}
