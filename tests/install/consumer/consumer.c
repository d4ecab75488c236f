/* Prints the version and the devices of an installed Chorus; exits 1 unless the cpu plugin came with it. */
#include <chorus/chorus.h>
#include <stdio.h>
#include <string.h>

int main(void) {
  chorus_context *context = NULL;
  chorus_error *error = NULL;
  int found = 0;
  size_t i;
  if (chorus_context_create(NULL, &context, &error) != CHORUS_OK) {
    fprintf(stderr, "%s\n", chorus_error_get_text(error));
    chorus_error_destroy(error);
    return 1;
  }
  printf("chorus %s\n", chorus_version());
  for (i = 0; i < chorus_context_get_device_count(context); ++i) {
    chorus_device_info info = CHORUS_DEVICE_INFO_INIT;
    if (chorus_context_get_device(context, i, &info, NULL) != CHORUS_OK) return 1;
    printf("%s by %s\n", info.name, info.plugin);
    if (strcmp(info.plugin, "cpu") == 0) found = 1;
  }
  chorus_context_destroy(context);
  return found ? 0 : 1;
}
