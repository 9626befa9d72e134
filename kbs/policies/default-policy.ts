/** Id of the policy that decides on every resource that is not bound to another one; upstream's id. */
export const defaultPolicyId = 'resource-policy';

/**
 * The built-in text of `resource-policy`: resources only, and only where every submodule of the evidence was appraised
 * as affirming. Evidence for which no reference values are registered is not affirming.
 */
export const defaultPolicy = `package policy

import rego.v1

default allow := false

allow if {
	data.plugin == "resource"
	count(input.submods) > 0
	every submod in input.submods {
		submod["ear.status"] == "affirming"
	}
}
`;
