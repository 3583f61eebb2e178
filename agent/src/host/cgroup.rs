//! Cgroups: id to path, quotas of a group and its ancestors.
