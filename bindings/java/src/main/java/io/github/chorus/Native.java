// SPDX-License-Identifier: Apache-2.0
package io.github.chorus;

import java.io.IOException;
import java.io.InputStream;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Comparator;
import java.util.List;
import java.util.stream.Stream;

/**
 * Loads the native libraries once: from the folder that the system property {@code chorus.library.path} names, else from this jar, unpacked
 * with their own names into a private folder, as libchorus looks for its plugins beside itself. {@code index} lists the files; those that
 * end in {@code !} are loaded, in that order.
 */
final class Native {
  private static final String FOLDER = "/natives/" + platform() + "/";

  static {
    String given = System.getProperty("chorus.library.path");
    try {
      Path folder = given != null ? Path.of(given).toAbsolutePath() : unpack();
      if (given != null) {
        for (String name : List.of("libchorus.so.0.0", "libchorus-java.so")) System.load(folder.resolve(name).toString());
      } else {
        for (String line : index()) if (line.endsWith("!")) System.load(folder.resolve(name(line)).toString());
      }
    } catch (IOException e) {
      throw new UnsatisfiedLinkError("the native libraries of Chorus cannot be unpacked: " + e);
    }
  }

  private Native() {}

  /** Runs the above, once. */
  static void load() {}

  private static String platform() {
    return System.getProperty("os.name").toLowerCase().replaceAll("[^a-z0-9]", "") + "-"
        + System.getProperty("os.arch").replace("amd64", "x86_64");
  }

  private static String name(String line) {
    return line.replace("!", "");
  }

  private static List<String> index() throws IOException {
    try (InputStream in = Native.class.getResourceAsStream(FOLDER + "index")) {
      if (in == null) {
        throw new IOException("no " + FOLDER + " in the jar; the system property chorus.library.path may name a folder");
      }
      return new String(in.readAllBytes(), StandardCharsets.UTF_8).lines().toList();
    }
  }

  private static Path unpack() throws IOException {
    Path folder = Files.createTempDirectory("chorus-"); // for this user alone
    Runtime.getRuntime().addShutdownHook(new Thread(() -> remove(folder)));
    for (String line : index()) {
      Path to = folder.resolve(name(line));
      Files.createDirectories(to.getParent());
      try (InputStream in = Native.class.getResourceAsStream(FOLDER + name(line))) {
        Files.copy(in, to);
      }
    }
    return folder;
  }

  private static void remove(Path folder) {
    try (Stream<Path> files = Files.walk(folder)) {
      files.sorted(Comparator.reverseOrder()).forEach(path -> path.toFile().delete());
    } catch (IOException e) {
      folder.toFile().deleteOnExit();
    }
  }
}
