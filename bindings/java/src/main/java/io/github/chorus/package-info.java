// SPDX-License-Identifier: Apache-2.0
/**
 * Many models act as one: combine their predictions, merge their weights, route between their experts.
 *
 * <p>Objects are immutable and may be shared by threads; close them, or leave it to the collector. Data lie in direct buffers of native
 * order, or at an address, and are never copied.
 */
package io.github.chorus;
